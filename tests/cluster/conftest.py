"""One cluster for all tests of this folder: three hosts, and a fourth that a user sits at."""

import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from cluster.forms import ROOT, on_premises
from cluster.hosts import HOME, Host, Network, missing, wait_for
from fissura.data.synthetic import SyntheticSpec, write

# What a host has instead of the internet: pip takes the environment's packages for all that fissura asks for.
PIP = """
[global]
no-index = yes
disable-pip-version-check = yes
[install]
no-deps = yes
no-build-isolation = no
"""
# What the guide sends to the nodes; the launcher has no more of the checkout than that.
SETTINGS = ("RAY_AUTH_MODE=token", "RAY_USAGE_STATS_ENABLED=0")
SENT = ("pyproject.toml", "README.md", "LICENSE", "platform", "search_spaces")
MADE = shutil.ignore_patterns("__pycache__", "*.egg-info")


@dataclass(frozen=True)
class RayUp:
    """A cluster that `ray up` started. `head` and `workers` are its hosts; the user sits at `launcher`."""

    network: Network
    head: Host
    workers: tuple[Host, Host]
    launcher: Host

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The hosts of the cluster."""
        return (self.head, *self.workers)

    def user(
        self, command: str, *, seconds: float = 300, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command line of the guide as the user would, beside cluster.yaml."""
        return self.launcher.run(as_user(command), seconds=seconds, check=check)

    def execute(self, command: str, *, seconds: float = 300) -> str:
        """What a command prints that `ray exec` runs on the head, among what `ray exec` says itself."""
        return self.user(f"ray exec cluster.yaml {shlex.quote(command)}", seconds=seconds).stdout.replace(
            "\r", ""
        )

    def cpus(self) -> dict[str, float]:
        """The address of each node that lives, and its CPUs, as the head knows them."""
        show = (
            "import json, ray; ray.init('auto', logging_level='ERROR', log_to_driver=False);"
            " print(json.dumps({n['NodeManagerAddress']: n['Resources'].get('CPU', 0)"
            " for n in ray.nodes() if n['Alive']}))"
        )
        done = self.head.run(as_user(f"python -c {shlex.quote(show)}"), seconds=200, check=False)
        cpus: dict[str, float] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
        return cpus


def as_user(command: str) -> str:
    """The command line in a shell with the environment that the guide asks for."""
    return f"cd ~/checkout 2> /dev/null; export PATH=~/env/bin:$PATH {' '.join(SETTINGS)}; {command}"


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """The network, still without hosts."""
    lacks = missing()
    if lacks:
        pytest.exit("; ".join(lacks), returncode=1)
    with Network(tmp_path_factory.mktemp("network")) as network:
        yield network


@pytest.fixture(scope="session")
def cluster(network: Network) -> RayUp:
    """Three hosts after the guide's `ray up`, all of them nodes."""
    head, one, two, launcher = (
        network.host(name, f"10.0.0.{number}")
        for number, name in enumerate(("head", "worker-1", "worker-2", "launcher"), start=1)
    )
    for host in (head, one, two, launcher):
        host.path(f"{HOME}/.config/pip").mkdir(parents=True)
        host.path(f"{HOME}/.config/pip/pip.conf").write_text(PIP)
    checkout = launcher.path(f"{HOME}/checkout")
    checkout.mkdir()
    for name in SENT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, checkout / name, ignore=MADE)
        else:
            shutil.copy(ROOT / name, checkout / name)
    (checkout / "cluster.yaml").write_text(yaml.safe_dump(on_premises(), sort_keys=False))
    cluster = RayUp(network, head, (one, two), launcher)
    cluster.user("ray get-auth-token --generate")
    cluster.user("ray up -y cluster.yaml", seconds=600)
    try:
        wait_for(lambda: len(cluster.cpus()) == 3, seconds=600, what="three nodes", every=5)
    except TimeoutError as error:
        logs = head.run("tail -n 40 ~/.fissura-ray/ray/session_latest/logs/monitor.*").stdout
        raise TimeoutError(f"{error}\n{cluster.cpus()}\n{logs}") from None
    return cluster


@pytest.fixture(scope="session")
def searched(cluster: RayUp, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study whose search the user submitted as a job, as this process sees it."""
    images = SyntheticSpec(train=8, val=4, test=4, height=64, width=64, crack_width=(1.5, 4.0))
    write(images, cluster.launcher.path(f"{HOME}/checkout/bridge"))
    cluster.user("ray rsync-up cluster.yaml ./bridge/ /shared/bridge/")
    log = tmp_path_factory.mktemp("logs") / "dashboard.log"
    tunnel = cluster.launcher.start(as_user("exec ray dashboard cluster.yaml"), log=log)
    answers = "curl -s -o /dev/null -w '%{http_code}' http://localhost:8265/api/version"
    try:
        wait_for(
            lambda: cluster.launcher.run(answers, check=False).stdout == "401",
            seconds=200,
            what="`ray dashboard`",
        )
        cluster.user(
            "ray job submit --address http://localhost:8265 -- "
            "fissura search small_unet --data synthetic:/shared/bridge --trials 8 --storage /shared/studies "
            # all trials to their end, so that each has a manifest: ASHA has nothing to stop in one epoch
            "--profile demo --set epochs=1 --set data.crop.size=32",
            seconds=900,
        )
    finally:
        tunnel.terminate()
        tunnel.wait()
    return cluster.network.shared / "studies" / "small_unet"
