"""From an address to findings: queries the nodes step by step, and checks their facts."""

import importlib.metadata
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from packaging.requirements import Requirement
from pydantic import TypeAdapter

from fissura.core.progress import Say
from fissura.core.text import count
from fissura.data.sources import ImageData
from fissura.distributed.environment import prepare_environment
from fissura.distributed.reach import unreachable
from fissura.operations.doctor.checks import judge
from fissura.operations.doctor.crew import Crew, ThisMachine
from fissura.operations.doctor.facts import (
    CACHE_FOLDER,
    STORAGE_FOLDER,
    Facts,
    NodeQuery,
    Seen,
    Shared,
    Written,
)
from fissura.operations.doctor.findings import Finding
from fissura.operations.doctor.probe import PACKAGES, take
from fissura.operations.doctor.shared_storage import (
    hold_locks,
    read_data,
    read_tokens,
    try_locks,
    write_token,
)


def diagnose(
    *, address: str | None, storage: Path | None, cache: Path, sources: Sequence[ImageData], say: Say
) -> list[Finding]:
    """The findings of every check on the cluster at `address`, or on this machine alone if it is None.

    A RAY_ADDRESS without an answer is a finding; then only this machine is checked.

    Raises:
        ResourceError: no cluster answers at `address`.
    """
    problem = ""
    if address is None and (set_address := os.environ.get("RAY_ADDRESS")):
        if reason := unreachable(set_address):
            problem = f"RAY_ADDRESS={set_address} is set, and nobody answers there ({reason})"
        else:
            address = set_address
    if address is None:
        seen = _look(ThisMachine(), storage=storage, cache=cache, sources=sources, say=say)
    else:
        prepare_environment(address)
        from fissura.distributed.cluster import connected
        from fissura.operations.doctor.cluster_crew import ClusterNodes, travelling

        with connected(address), travelling():
            seen = _look(ClusterNodes(), storage=storage, cache=cache, sources=sources, say=say)
    return judge(replace(seen, address=address, address_problem=problem))


def version_ranges() -> dict[str, str]:
    """The version ranges that the installed fissura requires, of packages and of Python."""
    try:
        metadata = importlib.metadata.metadata("fissura")
    except importlib.metadata.PackageNotFoundError:
        return {}
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist") or ()]
    ranges = {
        requirement.name: str(requirement.specifier)
        for requirement in requirements
        if requirement.name in PACKAGES and requirement.marker is None
    }
    return {"python": metadata["Requires-Python"]} | ranges


def _look(crew: Crew, *, storage: Path | None, cache: Path, sources: Sequence[ImageData], say: Say) -> Seen:
    say(f"asking {count(len(crew.nodes), 'node')}")
    nonce = secrets.token_hex(16)
    folders = {CACHE_FOLDER: str(cache)} | ({STORAGE_FOLDER: str(storage)} if storage else {})
    queries = {
        node: (NodeQuery(node, nonce, *crew.counted(node), folders, str(Path.cwd())),) for node in crew.nodes
    }
    facts = TypeAdapter(dict[str, Facts]).validate_python(crew.ask(take, queries))
    offsets = crew.offsets()
    shared = _share(crew, storage, nonce) if storage and crew.nodes else None
    data, problems = _read(crew, sources, cache, say=say)
    return Seen(
        nodes=tuple(facts.values()),
        ranges=version_ranges(),
        silent=crew.silent,
        offsets=offsets,
        shared=shared,
        data=data,
        data_problems=problems,
    )


def _share(crew: Crew, storage: Path, nonce: str) -> Shared:
    """Tries small files and locks below the storage, and removes them again."""
    scratch = str(storage / f".fissura-doctor-{nonce[:8]}")
    names = {node: f"node{number}" for number, node in enumerate(crew.nodes)}
    try:
        answers = crew.ask(write_token, {node: (scratch, name, nonce) for node, name in names.items()})
        written = {node: Written(*answer) for node, answer in answers.items()}
        writers = [names[node] for node, write in written.items() if not write.problem]
        answers = crew.ask(read_tokens, dict.fromkeys(crew.nodes, (scratch, writers, nonce)))
        node_of = {name: node for node, name in names.items()}
        saw = {node: tuple(node_of[name] for name in seen) for node, seen in answers.items()}
        locks = {}
        if all(len(seen) == len(written) for seen in saw.values()):
            held, tried = crew.at_once(hold_locks, try_locks, scratch)
            locks = tried | held
    finally:
        crew.ask(shutil.rmtree, dict.fromkeys(crew.nodes, (scratch, True)))
    return Shared(str(storage), written, saw, locks)


def _read(
    crew: Crew, sources: Sequence[ImageData], cache: Path, *, say: Say
) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Each data set's digest by node, and the problems by node."""
    digests: dict[str, dict[str, str]] = {}
    problems: dict[str, dict[str, str]] = {}
    for source in sources:
        say(f"reading {source} on every node")
        answers = crew.ask(read_data, {node: (source.plain(), str(cache)) for node in crew.nodes})
        digests[str(source)] = {node: digest for node, (digest, problem) in answers.items() if not problem}
        problems[str(source)] = {node: problem for node, (_, problem) in answers.items() if problem}
    return digests, problems
