"""Ray's processes on this machine and the ports they listen on, from /proc: no Ray, no privileges."""

import contextlib
import ipaddress
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LISTENING = "0A"
SESSION = re.compile(r"--session[-_]dir=(\S+)")
GENERATIONS = 4
# for another user's process, whose sockets are hidden, the usual port decides
USUAL_PORTS = {8265: "dashboard", 6379: "head", 10001: "client"}
ROLES = (
    ("gcs_server", "head"),
    ("dashboard/dashboard.py", "dashboard"),
    ("ray-dashboard", "dashboard"),
    ("ray.util.client.server", "client"),
    ("ray::Proxy", "serve"),
)


@dataclass(frozen=True)
class ListeningPort:
    """A port that a Ray process listens on. `role`: `dashboard`, `head`, `client`, `serve` or `other`;
    `guarded`: whether the process was started with RAY_AUTH_MODE=token."""

    role: str
    address: str
    port: int
    guarded: bool


@dataclass(frozen=True)
class Process:
    """A process of a Ray session; `session` is its folder, empty if unknown."""

    pid: int
    command: str
    session: str

    @property
    def role(self) -> str:
        """Its role in the cluster."""
        return next((role for mark, role in ROLES if mark in self.command), "other")


def ray_processes(proc: Path = Path("/proc")) -> list[Process]:
    """All Ray processes that this user can see, of any user."""
    pids = [int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()]
    commands = {pid: command_line(pid, proc) for pid in pids}
    processes = []
    for pid, command in commands.items():
        if SESSION.search(command) or command.startswith(("ray::", "ray-dashboard")):
            processes.append(Process(pid, command, _session(pid, commands, proc)))
    return processes


def _session(pid: int, commands: dict[int, str], proc: Path) -> str:
    """The session of a process, from its command line or those of its ancestors."""
    for _ in range(GENERATIONS):
        match = SESSION.search(commands.get(pid, ""))
        if match:
            return match[1]
        try:
            pid = int((proc / str(pid) / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError, ValueError):
            break
    return ""


def command_line(pid: int, proc: Path = Path("/proc")) -> str:
    """A process's command line; empty if it has ended or is hidden."""
    with contextlib.suppress(OSError):
        return (proc / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def environment(pid: int, proc: Path = Path("/proc")) -> dict[str, str]:
    """The environment that a process was started with; empty if it has ended or is hidden."""
    with contextlib.suppress(OSError):
        entries = (proc / str(pid) / "environ").read_bytes().decode(errors="replace").split("\0")
        return dict(entry.split("=", 1) for entry in entries if "=" in entry)
    return {}


def listeners(processes: list[Process], proc: Path = Path("/proc")) -> list[ListeningPort]:
    """The ports that `processes` listen on, and Ray's usual ports whose processes are hidden."""
    owners = {
        inode: (process.role, environment(process.pid, proc).get("RAY_AUTH_MODE") == "token")
        for process in processes
        for inode in _sockets(process.pid, proc)
    }
    hidden = {port for port in USUAL_PORTS if os.geteuid() != 0}
    ports = set()
    for table in ("tcp", "tcp6"):
        for address, port, inode in _listening(proc / "self" / "net" / table):
            role, guarded = owners.get(inode) or (USUAL_PORTS[port] if port in hidden else "", False)
            if role:
                ports.add((role, address, port, guarded))
    return [ListeningPort(*port) for port in sorted(ports)]


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches a port that listens on `address`."""
    return ipaddress.ip_address(address).is_loopback


def _listening(table: Path) -> Iterator[tuple[str, int, str]]:
    try:
        lines = table.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return
    for line in lines:
        words = line.split()
        if words[3] == LISTENING:
            address, port = words[1].split(":")
            yield _address(address), int(port, 16), words[9]


def _address(hexadecimal: str) -> str:
    # the kernel prints words of four bytes, each in the machine's own order
    words = [bytes.fromhex(hexadecimal[at : at + 8])[::-1] for at in range(0, len(hexadecimal), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _sockets(pid: int, proc: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for link in (proc / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(link.readlink())
                if target.startswith("socket:["):
                    yield target[len("socket:[") : -1]
