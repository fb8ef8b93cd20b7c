"""Hosts on one machine: each has processes, files, a name, a network and an sshd of its own.

    with Network(folder) as network:
        one, two = network.host("one", "10.0.0.1"), network.host("two", "10.0.0.2")
        one.run("ssh two hostname")

A host is a set of Linux namespaces that live as long as its first process, which the kernel ends with the
process that made it: however a test ends, nothing is left. Nothing on the machine itself is changed, and no
traffic leaves it.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")
TOOLS = {
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ip": "iproute2",
    "ss": "iproute2",
    "rsync": "rsync",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
}
HOME = "/home/ubuntu"
ROUTER = "10.0.0.254"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing() -> list[str]:
    """What this machine lacks to hold hosts, a sentence each; empty where it can."""
    if sys.platform != "linux":
        return ["hosts are Linux namespaces: run this on Linux"]
    lacks = []
    if os.geteuid() != 0:
        lacks.append("hosts are made by root: run this as root")
    packages = sorted({package for tool, package in TOOLS.items() if shutil.which(tool, path=PATH) is None})
    if packages:
        lacks.append(f"programs are not here: apt install {' '.join(packages)}")
    if not lacks:
        tried = subprocess.run(
            ["unshare", "--mount", "--net", "--pid", "--fork", "true"], capture_output=True, text=True
        )
        if tried.returncode:
            lacks.append(
                f"this machine lets root make no namespaces ({tried.stderr.strip()}):"
                " run this outside a container"
            )
    return lacks


def wait_for(condition: Callable[[], T], *, seconds: float, what: str, every: float = 0.2) -> T:
    """What `condition` gives as soon as that is true; it is asked `every` so many seconds.

    Raises:
        TimeoutError: it was not within `seconds`.
    """
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(every)
    return found


@dataclass(frozen=True)
class Listener:
    """A TCP port that a process of a host listens on."""

    address: str
    port: int
    process: str


class Host:
    """One host. `pid` is that of its first process, as the machine sees it."""

    def __init__(self, name: str, address: str, *, process: subprocess.Popen[bytes], pid: int) -> None:
        self.name, self.address, self.pid = name, address, pid
        self._process = process

    def path(self, inside: str) -> Path:
        """Where a path of this host lies, for this process."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def run(
        self, command: str, *, seconds: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command line as a login on this host would, from the user's home.

        Raises:
            AssertionError: it failed, with all that it said; not where `check` is False.
        """
        done = subprocess.run(
            self._entering(command), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=seconds,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{self.name}: {command}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, command: str, *, log: Path) -> subprocess.Popen[bytes]:
        """Starts a command line as `run` does, and returns at once; what it says goes to the file `log`."""
        with log.open("wb") as file:
            return subprocess.Popen(
                self._entering(command), stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )

    def listeners(self) -> list[Listener]:
        """What listens on TCP here, sshd left out."""
        found = []
        for line in self.run("ss -Hltnp").stdout.splitlines():
            address, _, port = line.split()[3].rpartition(":")
            name = line.partition('users:(("')[2].partition('"')[0]
            if name != "sshd":
                found.append(Listener(address.strip("[]").removeprefix("::ffff:"), int(port), name))
        return found

    def processes(self, word: str) -> list[str]:
        """The command lines here that hold `word`."""
        return [line for line in self.run("ps -ww -eo args").stdout.splitlines() if word in line]

    def end(self) -> None:
        """Takes the host away at once, as a power cut does."""
        self._process.kill()
        self._process.wait()

    def _entering(self, command: str) -> list[str]:
        return [
            "nsenter", f"--target={self.pid}", "--mount", "--uts", "--ipc", "--net", "--pid",
            f"--root=/proc/{self.pid}/root",
            "env", "-i", f"HOME={HOME}", f"USER={Path(HOME).name}", f"PATH={PATH}", "LANG=C.UTF-8",
            "TERM=dumb", "bash", "-c", f"cd; {command}",
        ]  # fmt: skip


class Network:
    """A switch, and the hosts on it. They see one another, their own folders, and `shared` at /shared."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.shared = folder / "shared"
        self.shared.mkdir(parents=True)
        self._key = folder / "key"
        self._ending = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as ending:
            switch = self._begin(
                ending, ["unshare", "--net", "sleep", "infinity"], log=self._folder / "switch.log"
            )
            self._switch = switch.pid
            own = Path("/proc/self/ns/net").readlink()
            wait_for(
                lambda: Path(f"/proc/{switch.pid}/ns/net").readlink() != own,
                seconds=10,
                what="the switch's network",
            )
            self._on_switch("link", "add", "switch", "type", "bridge")
            self._on_switch("addr", "add", f"{ROUTER}/24", "dev", "switch")
            self._on_switch("link", "set", "switch", "up")
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._key)], check=True)
            self._ending = ending.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()

    def host(self, name: str, address: str) -> Host:
        """A host that is up: its sshd answers, and admits whoever holds the network's key.

        Raises:
            TimeoutError: it did not come up; the log lies in the network's folder.
        """
        root = self._folder / name
        root.mkdir(exist_ok=True)
        script = Path(__file__).with_name("host.sh")
        words = [str(root), name, address, ROUTER, HOME, sys.prefix, sys.base_prefix, str(self.shared)]
        log = self._folder / f"{name}.log"
        process = self._begin(
            self._ending,
            [
                "unshare",
                "--mount",
                "--uts",
                "--ipc",
                "--net",
                "--pid",
                "--kill-child",
                "sh",
                str(script),
                *words,
            ],
            log=log,
        )
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_for(children.read_text, seconds=10, what=f"the first process of {name}")
        host = Host(name, address, process=process, pid=int(children.read_text()))
        cable = f"to-{name}"
        self._on_switch("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        self._on_switch("link", "set", cable, "master", "switch", "up")
        try:
            wait_for(lambda: "Server listening" in log.read_text(), seconds=20, what=f"sshd of {name}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{log.read_text()}") from None
        folder = host.path(f"{HOME}/.ssh")
        shutil.copy(self._key, folder / "id_ed25519")
        shutil.copy(self._key.with_suffix(".pub"), folder / "authorized_keys")
        (folder / "id_ed25519").chmod(0o600)
        return host

    def _on_switch(self, *words: str) -> None:
        subprocess.run(["nsenter", f"--target={self._switch}", "--net", "ip", *words], check=True)

    def _begin(self, ending: ExitStack, command: list[str], *, log: Path) -> subprocess.Popen[bytes]:
        """Starts a process that the kernel kills when this one ends, however it ends."""
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

        def end() -> None:
            process.send_signal(signal.SIGKILL)
            process.wait()

        ending.callback(end)
        return process
