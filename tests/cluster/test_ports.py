"""What listens where, as docs/security.md says, and what it does for somebody without the cluster's token."""

import ipaddress
import json
import re
import shutil
from pathlib import Path

import pytest

from cluster.conftest import RayUp, as_user
from cluster.forms import ROOT
from cluster.hosts import HOME, Host, Listener

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]

SECURITY = (ROOT / "docs" / "security.md").read_text()
# ports with a number that cluster.yaml or Ray gives them, and whose they are
FIXED = {
    6379: "control store", 8000: "Serve", 8080: "metrics of the node", 8265: "dashboard, jobs",
    10001: "Ray client", 44217: "metrics of the autoscaler", 44227: "metrics of the dashboard",
    52365: "agent, jobs of the node",
}  # fmt: skip
BY_PROCESS = {"raylet": "raylet", "ray::DashboardA": "agent", "ray::RuntimeEnv": "environments"}


@pytest.fixture(scope="module")
def served(cluster: RayUp, searched: Path) -> RayUp:
    """The cluster, with the best model of the search served on every node."""
    cluster.execute(f"fissura serve --best /shared/studies/{searched.name} --address auto", seconds=600)
    return cluster


def line(host: Host, listener: Listener) -> tuple[str, str, str, str]:
    """A listener as a line of the guide: whose it is, on which hosts, its port, its addresses."""
    fixed = listener.port in FIXED
    whose = FIXED[listener.port] if fixed else BY_PROCESS.get(listener.process, "each running actor or task")
    where = "head" if host.name == "head" else "workers"
    return whose, where, str(listener.port) if fixed else "any", reach(host, listener)


def reach(host: Host, listener: Listener) -> str:
    """Which addresses of its host a listener answers at."""
    if listener.address in {"*", "0.0.0.0", "::"}:  # noqa: S104
        return "all"
    return "loopback" if ipaddress.ip_address(listener.address).is_loopback else "the node's"


def documented() -> dict[tuple[str, str, str, str], str]:
    """The lines of the guide's table, and what each does without the token."""
    rows = re.findall(
        r"^\| (.+?) \| (head|workers|both) \| (\w+) \| (.+?) \| (.+?) \|$", SECURITY, re.MULTILINE
    )
    return {
        (whose, host, port, address): verdict
        for whose, hosts, port, addresses, verdict in rows
        for host in (("head", "workers") if hosts == "both" else (hosts,))
        for address in addresses.split(", ")
    }


def probe(cluster: RayUp, targets: list[str], *, token: str) -> dict[str, str]:
    """What each ADDRESS:PORT does for the launcher, which is no part of the cluster."""
    shutil.copy(Path(__file__).with_name("probe.py"), cluster.launcher.path(f"{HOME}/probe.py"))
    asked = f"TOKEN='{token}' ~/env/bin/python ~/probe.py {' '.join(targets)}"
    found: dict[str, str] = json.loads(cluster.launcher.run(asked, seconds=600).stdout)
    return found


def outward(cluster: RayUp) -> dict[str, tuple[str, str, str, str]]:
    """Every ADDRESS:PORT of the cluster that does not listen on loopback, and its line of the guide."""
    return {
        f"{host.address}:{listener.port}": line(host, listener)
        for host in cluster.hosts
        for listener in host.listeners()
        if reach(host, listener) != "loopback"
    }


def test_what_listens_where_is_what_the_guide_says(served: RayUp) -> None:
    measured = {line(host, listener) for host in served.hosts for listener in host.listeners()}
    assert measured == documented().keys()


@pytest.mark.parametrize("token", ["", "0" * 64], ids=["without a token", "with a wrong token"])
def test_every_port_refuses_a_stranger_or_is_one_that_the_guide_calls_open(served: RayUp, token: str) -> None:
    ports = outward(served)
    verdicts = probe(served, list(ports), token=token)
    still = set(outward(served))
    told = {port: documented()[ports[port]] for port in ports}
    # a process that ended meanwhile took its port with it
    assert {port: verdicts[port] for port in ports if port in still} == {
        port: {"refused": "refused", "answers": "answered"}[told[port]] for port in ports if port in still
    }


def test_the_control_store_answers_who_has_the_token(served: RayUp) -> None:
    token = served.launcher.path(f"{HOME}/.ray/auth_token").read_text().strip()
    store = f"{served.head.address}:6379"
    assert probe(served, [store], token=token) == {store: "answered"}


@pytest.mark.parametrize(
    "settings", ["RAY_AUTH_MODE=disabled", "RAY_AUTH_MODE=token RAY_AUTH_TOKEN=" + "0" * 64]
)
def test_a_ray_program_without_the_token_cannot_join(served: RayUp, settings: str) -> None:
    program = f"import ray; ray.init('{served.head.address}:6379'); print('joined')"
    for host in (served.launcher, served.workers[0]):
        done = host.run(as_user(f'{settings} python -c "{program}"'), seconds=200, check=False)
        assert done.returncode != 0
        assert "joined" not in done.stdout


def test_dashboard_jobs_and_serve_are_closed_to_other_hosts_and_open_on_loopback(served: RayUp) -> None:
    targets = [f"{host.address}:{port}" for host in served.hosts for port in (8265, 8000)]
    assert set(probe(served, targets, token="").values()) == {"closed"}
    status = "curl -s -o /dev/null -w '%{http_code}'"
    jobs = f"{status} http://127.0.0.1:8265/api/jobs/"
    assert served.head.run(jobs).stdout == "401"
    assert served.head.run(f"{jobs} -H 'Authorization: Bearer wrong'").stdout == "403"
    assert served.head.run(f'{jobs} -H "Authorization: Bearer $(cat ~/.ray/auth_token)"').stdout == "200"
    assert served.head.run(f"{status} http://127.0.0.1:8000/readyz").stdout == "200"


def test_the_token_is_for_its_owner_alone_and_on_no_command_line(served: RayUp) -> None:
    for host in served.hosts:
        place = host.path(f"{HOME}/.ray/auth_token")
        assert place.stat().st_mode & 0o077 == 0
        assert host.processes(place.read_text().strip()) == []


def test_ray_s_sockets_and_logs_lie_where_no_other_user_of_a_host_gets_in(served: RayUp) -> None:
    for host in served.hosts:
        folder = host.path(f"{HOME}/.fissura-ray")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "ray" / "session_latest").is_symlink()
        assert not host.path("/tmp/ray").exists()  # noqa: S108
