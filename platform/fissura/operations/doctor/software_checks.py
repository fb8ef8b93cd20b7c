"""Checks of software and settings: versions, the standard library's `platform`, addresses, tools."""

from collections.abc import Iterator

from packaging.specifiers import SpecifierSet

from fissura.operations.doctor.facts import Facts, Seen
from fissura.operations.doctor.findings import Finding, NodeFault, faults
from fissura.operations.doctor.probe import PACKAGES


def nodes(seen: Seen) -> list[Finding]:
    """Every node answers."""
    silent = [
        Finding(
            "nodes",
            "error",
            f"did not answer: {reason}",
            "look at its Ray session's logs, free memory there, or take it out of the cluster",
            (node,),
        )
        for node, reason in seen.silent.items()
    ]
    return silent or [Finding("nodes", "ok", f"{len(seen.nodes)} answered")]


def versions(seen: Seen) -> list[Finding]:
    """All nodes have the same Python, packages and source of fissura, within fissura's required ranges."""

    def judge(node: Facts) -> Iterator[NodeFault]:
        install = "install fissura there with `pip install -c platform/constraints.txt -e .`"
        if node.import_problem:
            yield NodeFault("error", f"fissura cannot be imported ({node.import_problem})", install)
        for name, version in (("python", node.python), *node.versions.items()):
            required = seen.ranges.get(name, "")
            if not SpecifierSet(required).contains(version, prereleases=True):
                yield NodeFault("error", f"{name} {version} is outside of {required}", install)
        for name in PACKAGES:
            if name not in node.versions and not (name == "fissura" and not node.import_problem):
                yield NodeFault("error", f"{name} is not installed", install)

    findings = faults("versions", seen, judge)
    for name in ("python", *PACKAGES):
        nodes_of: dict[str, list[str]] = {}
        for node in seen.nodes:
            nodes_of.setdefault(node.python if name == "python" else node.versions.get(name, ""), []).append(
                node.node
            )
        nodes_of.pop("", None)
        findings += _differing(name, nodes_of)
    code: dict[str, list[str]] = {}
    for node in seen.nodes:
        if node.code:
            code.setdefault(node.code, []).append(node.node)
    findings += _differing("the source of fissura", code)
    if findings:
        return findings
    first = seen.nodes[0]
    listed = ", ".join(f"{name} {version}" for name, version in first.versions.items())
    return [Finding("versions", "ok", f"Python {first.python}, {listed}")]


def _differing(name: str, nodes_of: dict[str, list[str]]) -> list[Finding]:
    """One finding for each version that differs from the most common one."""
    if len(nodes_of) < 2:
        return []
    most_common = max(nodes_of, key=lambda version: len(nodes_of[version]))
    return [
        Finding(
            "versions", "error", f"{name} {version}, elsewhere {most_common}",
            "install the same on all nodes, from platform/constraints.txt", tuple(names),
        )
        for version, names in nodes_of.items()
        if version != most_common
    ]  # fmt: skip


def standard_platform(seen: Seen) -> list[Finding]:
    """`import platform` imports the standard library's module, and no file hides it."""

    def judge(node: Facts) -> Iterator[NodeFault]:
        for path in node.shadows:
            yield NodeFault(
                "error",
                f"{path} hides the standard library's module `platform`, which Ray and PyTorch import",
                "rename it, or start in another folder",
            )

    ok = Finding("platform", "ok", "is the standard library's")
    return faults("platform", seen, judge) or [ok]


def ray_address(seen: Seen) -> list[Finding]:
    """RAY_ADDRESS answers, and the choice among several Rays on a machine is clear."""
    if seen.address_problem:
        return [
            Finding(
                "address", "error", seen.address_problem,
                "`unset RAY_ADDRESS` to work on this machine, or start the cluster; the checks below are of"
                " this machine alone",
            )
        ]  # fmt: skip

    def judge(node: Facts) -> Iterator[NodeFault]:
        if len(node.clusters) > 1 and (seen.address in (None, "auto")):
            yield NodeFault(
                "warning",
                f"{len(node.clusters)} Rays have their head here ({', '.join(node.clusters)})",
                "name one with --address HOST:PORT or RAY_ADDRESS, or end the others by their process ids"
                " (`ray stop` ends them all)",
            )

    ok = Finding("address", "ok", seen.address or "no cluster is asked for; this machine alone")
    return faults("address", seen, judge) or [ok]


def tools(seen: Seen) -> list[Finding]:
    """`ray up` needs these tools; a cluster started otherwise does not."""
    lacking = sorted({tool for node in seen.nodes for tool in ("sshd", "rsync") if tool not in node.tools})
    text = (
        f"`ray up` needs {' and '.join(lacking)}, not on PATH everywhere"
        if lacking
        else "ssh and rsync for `ray up`"
    )
    return [Finding("tools", "ok", text)]
