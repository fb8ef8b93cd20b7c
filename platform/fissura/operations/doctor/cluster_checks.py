"""Checks of what the nodes share: storage, clocks, ports, tokens, data."""

import shlex
from collections.abc import Iterator
from itertools import pairwise

from fissura.distributed.processes import is_loopback
from fissura.operations.doctor.facts import STORAGE_FOLDER, Facts, Seen
from fissura.operations.doctor.findings import Finding, NodeFault, faults, span

SLOW_WRITE_SECONDS = 0.1
SKEW_SECONDS = 1.0
NETWORK = ("nfs", "cifs", "smb", "fuse.", "9p", "lustre", "ceph", "glusterfs")


def storage(seen: Seen) -> list[Finding]:
    """Every node writes to the storage and sees the others' files, and locks hold between processes."""
    if seen.shared is None:
        return [Finding("storage", "ok", "not looked at; name it with --storage DIR")]
    shared = seen.shared
    path, found = shared.path, []

    def judge(node: Facts) -> Iterator[NodeFault]:
        written = shared.written.get(node.node)
        if written is not None and written.problem:
            yield NodeFault(
                "error",
                f"{path}: cannot be written ({written.problem})",
                "make room, mount it there, or mend its permissions",
            )
            return
        unseen = [
            other
            for other in shared.written
            if not shared.written[other].problem and other not in shared.saw.get(node.node, ())
        ]
        if unseen:
            yield NodeFault(
                "error",
                f"{path}: is not what other nodes have there: the files of {', '.join(unseen)} are not seen",
                "mount the same file system at this path on every node; trials could not be found otherwise",
            )
        if written is not None and written.seconds > SLOW_WRITE_SECONDS:
            yield NodeFault(
                "warning",
                f"{path}: a small synced write takes {written.seconds * 1000:.0f} ms; each epoch makes some",
                "use a faster disk, or an NFS export that is nearer",
            )
        for folder in node.folders:
            loose = {"nolock", "local_lock=all", "local_lock=flock", "local_lock=posix"} & set(folder.options)
            if folder.purpose == STORAGE_FOLDER and folder.filesystem.startswith("nfs") and loose:
                yield NodeFault(
                    "warning",
                    f"{path}: NFS mounted with {', '.join(sorted(loose))}: two searches could take one study",
                    "mount it with nfsvers=4.1 and without these options",
                )

    found = faults("storage", seen, judge)
    for lock, outcome in shared.locks.items():
        if outcome == "granted":
            found.append(
                Finding(
                    "storage",
                    "error",
                    f"{path}: two processes got the lock of {lock} at once",
                    "use a file system with locks, such as NFS 4.1; a study's database could be torn",
                )
            )
        elif outcome != "refused":
            found.append(
                Finding(
                    "storage",
                    "error",
                    f"{path}: {lock} cannot be locked ({outcome})",
                    "use a file system with locks, such as a local disk or NFS 4.1",
                )
            )
    if found:
        return found
    kinds = sorted(
        {
            folder.filesystem
            for node in seen.nodes
            for folder in node.folders
            if folder.purpose == STORAGE_FOLDER
        }
    )
    times = span([write.seconds for write in shared.written.values()], lambda value: f"{value * 1000:.1f} ms")
    alone = len(seen.nodes) == 1
    if not alone and not any(kind.startswith(NETWORK) for kind in kinds):
        kinds = [*kinds, "one machine's"]
    return [
        Finding(
            "storage",
            "ok",
            f"{path} ({', '.join(kinds)}): {'' if alone else 'one place for all nodes, '}locks hold, a synced"
            f" write takes {times}",
        )
    ]


def clocks(seen: Seen) -> list[Finding]:
    """The clocks agree, as far as a round trip can tell."""
    if len(seen.offsets) < 2:
        return [Finding("clocks", "ok", "one machine")]
    ordered = sorted(seen.offsets.items(), key=lambda item: item[1].seconds)
    (early, low), (late, high) = ordered[0], ordered[-1]
    apart, bound = high.seconds - low.seconds, high.bound + low.bound
    if apart - bound > SKEW_SECONDS:
        return [
            Finding(
                "clocks",
                "warning",
                f"{apart:.1f} s apart (to {bound * 1000:.0f} ms); logs and file times disagree",
                "start chrony or systemd-timesyncd on both",
                (early, late),
            )
        ]
    return [Finding("clocks", "ok", f"at most {apart + bound:.3f} s apart")]


def ports(seen: Seen) -> list[Finding]:
    """Nobody who reaches the machine can use Ray's ports without a token (ShadowRay, CVE-2023-48022)."""

    def judge(node: Facts) -> Iterator[NodeFault]:
        open_ports = [listener for listener in node.listeners if not is_loopback(listener.address)]
        for listener in open_ports:
            address = f"{listener.address}:{listener.port}"
            guarded = listener.guarded
            if listener.role == "dashboard":
                yield NodeFault(
                    "warning" if guarded else "error",
                    f"the dashboard and its job port listen on {address}"
                    f"{'' if guarded else ' without a token: who reaches it can run code here (ShadowRay)'}",
                    "start Ray with --dashboard-host=127.0.0.1 and reach it through ssh"
                    f"{'' if guarded else ', and with RAY_AUTH_MODE=token'}",
                )
            elif listener.role == "serve":
                yield NodeFault(
                    "warning",
                    f"a service listens on {address}",
                    "keep it behind a proxy with TLS, or on 127.0.0.1",
                )
        open_to_network = sorted(
            {
                listener.port
                for listener in open_ports
                if listener.role in ("head", "client") and not listener.guarded
            }
        )
        if open_to_network:
            yield NodeFault(
                "warning",
                f"Ray's ports {', '.join(map(str, open_to_network))} are open to the network without a token",
                "start every node with RAY_AUTH_MODE=token, and let a firewall admit the nodes alone",
            )

    return faults("ports", seen, judge) or [
        Finding(
            "ports",
            "ok",
            "no dashboard or service beyond loopback"
            if any(node.listeners for node in seen.nodes)
            else "no Ray listens",
        )
    ]


def tokens(seen: Seen) -> list[Finding]:
    """All nodes have the same token, and no other user can read it."""

    def judge(node: Facts) -> Iterator[NodeFault]:
        token = node.token
        if token.permissions is not None and token.permissions & 0o077:
            yield NodeFault(
                "error" if token.mode == "token" or node.ray is None else "warning",
                f"{token.path} can be read by others (mode {token.permissions:04o}); it is a password",
                f"`chmod 600 {shlex.quote(token.path)}`, and make a new one if others use the machine",
            )
        if node.ray and token.mode != "token":
            yield NodeFault(
                "warning",
                f"RAY_AUTH_MODE={token.mode or 'unset'}: Ray asks nobody for a token",
                "`ray get-auth-token --generate`, the same file on all nodes, and RAY_AUTH_MODE=token where"
                " Ray is started",
            )
        if token.mode == "token" and not token.mark:
            yield NodeFault(
                "error",
                f"RAY_AUTH_MODE=token, and there is no token at {token.path}",
                "copy the cluster's token there, with mode 0600",
            )

    found = faults("tokens", seen, judge)
    modes = {node.node: node.token.mode for node in seen.nodes}
    if len(set(modes.values())) > 1:
        listed = ", ".join(f"{mode or 'unset'} on {node}" for node, mode in modes.items())
        found.append(
            Finding(
                "tokens",
                "error",
                f"RAY_AUTH_MODE differs: {listed}",
                "set it alike on all nodes and start Ray again",
            )
        )
    marked = [node for node in seen.nodes if node.token.mode == "token" and node.token.mark]
    for before, after in pairwise(marked):
        if before.token.mark != after.token.mark:
            found.append(
                Finding(
                    "tokens",
                    "error",
                    f"another token than on {before.node}",
                    "copy one token to all nodes and start Ray again",
                    (after.node,),
                )
            )
    ok = (
        f"one for {len(marked)} nodes"
        if len(marked) > 1
        else ("set" if marked else "no Ray runs; one that fissura starts makes its own")
    )
    return found or [Finding("tokens", "ok", ok)]


def data(seen: Seen) -> list[Finding]:
    """Every node reads the same bytes of every data set."""
    findings = []
    for source, problems in seen.data_problems.items():
        for node, problem in problems.items():
            findings.append(
                Finding(
                    "data",
                    "error",
                    f"{source}: {problem}",
                    "put the data where every node sees it, at the same path",
                    (node,) if len(problems) < len(seen.nodes) else (),
                )
            )
    for source, digests in seen.data.items():
        usual = max(set(digests.values()), key=list(digests.values()).count, default="")
        others = tuple(node for node, digest in digests.items() if digest != usual)
        if others:
            findings.append(
                Finding(
                    "data",
                    "error",
                    f"{source}: holds other files than elsewhere",
                    "copy it anew from one place; trials there would train on other images",
                    others,
                )
            )
    listed = ", ".join(
        f"{source} {next(iter(digests.values()))}" for source, digests in seen.data.items() if digests
    )
    return findings or [
        Finding(
            "data",
            "ok",
            f"{listed}, the same on every node" if listed else "not looked at; name it with --data KIND:ROOT",
        )
    ]
