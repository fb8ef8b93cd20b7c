"""From an address to findings: asks the nodes, a step at a time, and judges what they said."""

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
    """What every check says of the cluster at `address`, or of this machine alone where it is None.

    A RAY_ADDRESS that nobody answers at is a finding, and this machine alone is looked at then.

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
    """The versions that the installed fissura takes, of itself those of Python."""
    try:
        own = importlib.metadata.metadata("fissura")
    except importlib.metadata.PackageNotFoundError:
        return {}
    required = [Requirement(text) for text in own.get_all("Requires-Dist") or ()]
    ranges = {one.name: str(one.specifier) for one in required if one.name in PACKAGES and one.marker is None}
    return {"python": own["Requires-Python"]} | ranges


def _look(crew: Crew, *, storage: Path | None, cache: Path, sources: Sequence[ImageData], say: Say) -> Seen:
    say(f"asking {len(crew.nodes)} node{'s' * (len(crew.nodes) != 1)}")
    nonce = secrets.token_hex(16)
    folders = {CACHE_FOLDER: str(cache)} | ({STORAGE_FOLDER: str(storage)} if storage else {})
    asked = {
        node: (NodeQuery(node, nonce, *crew.counted(node), folders, str(Path.cwd())),) for node in crew.nodes
    }
    facts = TypeAdapter(dict[str, Facts]).validate_python(crew.ask(take, asked))
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
    """What becomes of small files and locks below the storage; nothing of it is left."""
    scratch = str(storage / f".fissura-doctor-{nonce[:8]}")
    names = {node: f"node{number}" for number, node in enumerate(crew.nodes)}
    try:
        answers = crew.ask(write_token, {node: (scratch, name, nonce) for node, name in names.items()})
        written = {node: Written(*answer) for node, answer in answers.items()}
        wrote = [names[node] for node, one in written.items() if not one.problem]
        answers = crew.ask(read_tokens, dict.fromkeys(crew.nodes, (scratch, wrote, nonce)))
        node_of = {name: node for node, name in names.items()}
        saw = {node: tuple(node_of[name] for name in there) for node, there in answers.items()}
        locks = {}
        if all(len(there) == len(written) for there in saw.values()):
            kept, tried = crew.at_once(hold_locks, try_locks, scratch)
            locks = tried | kept
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
