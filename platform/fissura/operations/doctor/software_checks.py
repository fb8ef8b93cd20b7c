"""Checks of what is installed and set: versions, the standard library's `platform`, addresses, tools."""

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
    """The same Python, packages and source of fissura everywhere, within the ranges that fissura takes."""

    def judge(node: Facts) -> Iterator[NodeFault]:
        install = "install fissura there with `pip install -c platform/constraints.txt -e .`"
        if node.import_problem:
            yield NodeFault("error", f"fissura cannot be imported ({node.import_problem})", install)
        for name, found in (("python", node.python), *node.versions.items()):
            taken = seen.ranges.get(name, "")
            if not SpecifierSet(taken).contains(found, prereleases=True):
                yield NodeFault("error", f"{name} {found} is outside of {taken}", install)
        for name in PACKAGES:
            if name not in node.versions and not (name == "fissura" and not node.import_problem):
                yield NodeFault("error", f"{name} is not installed", install)

    found = faults("versions", seen, judge)
    for name in ("python", *PACKAGES):
        having: dict[str, list[str]] = {}
        for node in seen.nodes:
            having.setdefault(node.python if name == "python" else node.versions.get(name, ""), []).append(
                node.node
            )
        having.pop("", None)
        found += _differing(name, having)
    code: dict[str, list[str]] = {}
    for node in seen.nodes:
        if node.code:
            code.setdefault(node.code, []).append(node.node)
    found += _differing("the source of fissura", code)
    if found:
        return found
    first = seen.nodes[0]
    listed = ", ".join(f"{name} {version}" for name, version in first.versions.items())
    return [Finding("versions", "ok", f"Python {first.python}, {listed}")]


def _differing(name: str, having: dict[str, list[str]]) -> list[Finding]:
    """A line where nodes have different versions of one thing; it names those that the fewest have."""
    if len(having) < 2:
        return []
    usual = max(having, key=lambda version: len(having[version]))
    return [
        Finding(
            "versions", "error", f"{name} {version}, elsewhere {usual}",
            "install the same on all nodes, from platform/constraints.txt", tuple(those),
        )
        for version, those in having.items()
        if version != usual
    ]  # fmt: skip


def standard_platform(seen: Seen) -> list[Finding]:
    """`import platform` gives the standard library's module, and nothing waits to take its place."""

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
    """RAY_ADDRESS leads somewhere, and it is clear which of several Rays on a machine is meant."""
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
    """What `ray up` needs on a machine; a cluster that something else starts can do without."""
    lacking = sorted({tool for node in seen.nodes for tool in ("sshd", "rsync") if tool not in node.tools})
    text = (
        f"`ray up` needs {' and '.join(lacking)}, not on PATH everywhere"
        if lacking
        else "ssh and rsync for `ray up`"
    )
    return [Finding("tools", "ok", text)]
