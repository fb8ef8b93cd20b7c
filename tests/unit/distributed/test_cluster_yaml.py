"""cluster.yaml, and its form for one's own machines: valid by Ray's schema, with no port or door open."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.forms import GUIDE, ROOT, TEXT, on_aws, on_premises

FORMS = [pytest.param(on_aws(), id="aws"), pytest.param(on_premises(), id="own machines")]
COMMAND_LISTS = [
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
]


@pytest.mark.parametrize("form", FORMS)
def test_ray_accepts_it(form: dict[str, Any]) -> None:
    validate_config(prepare_config(form))


@pytest.mark.parametrize("form", FORMS)
def test_every_command_is_a_line_that_a_shell_can_read(form: dict[str, Any]) -> None:
    for command in [line for key in COMMAND_LISTS for line in form.get(key, [])]:
        subprocess.run(["bash", "-n", "-c", command], check=True)
        assert "\n" not in command.strip()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_ray_starts_anew_and_refuses_requests_without_the_token(form: dict[str, Any], key: str) -> None:
    stop, start = form[key]
    assert stop == "ray stop"
    assert "export" in start.partition("ray start")[0]
    assert "RAY_AUTH_MODE=token" in start.partition("ray start")[0]
    assert form["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"  # noqa: S105


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_no_other_user_of_a_node_gets_into_ray_s_folder(
    form: dict[str, Any], key: str, tmp_path: Path
) -> None:
    [make] = [command for command in form["setup_commands"] if command.startswith("mkdir")]
    for _ in range(2):
        subprocess.run(
            ["bash", "-c", f"umask 0; {make}"], env={"HOME": str(tmp_path), "PATH": "/bin"}, check=True
        )
    [made] = tmp_path.iterdir()
    assert made.stat().st_mode & 0o777 == 0o700
    # Ray opens the folder itself to all
    assert f" --temp-dir=$HOME/{made.name}/ray " in form[key][1]


@pytest.mark.parametrize("form", FORMS)
def test_the_dashboard_listens_on_loopback_and_the_first_autoscaler_rules(form: dict[str, Any]) -> None:
    start = form["head_start_ray_commands"][1]
    assert "--dashboard-host=127.0.0.1" in start
    assert "RAY_enable_autoscaler_v2=0" in start.partition("ray start")[0]
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start


@pytest.mark.parametrize("form", FORMS)
def test_the_head_takes_no_trials(form: dict[str, Any]) -> None:
    assert "ray start --head --num-cpus=0 --num-gpus=0" in form["head_start_ray_commands"][1]


def test_the_workers_find_the_head() -> None:
    assert "--address=$RAY_HEAD_IP:6379" in on_aws()["worker_start_ray_commands"][1]
    assert "--port=6379" in on_aws()["head_start_ray_commands"][1]


def test_no_port_is_open_to_the_world() -> None:
    """Ray makes a security group with port 22 open to all where a node type names none."""
    assert "0.0.0.0" not in TEXT  # noqa: S104
    assert "::/0" not in TEXT
    assert "IpPermissions" not in TEXT
    groups = {
        tuple(kind["node_config"]["SecurityGroupIds"]) for kind in on_aws()["available_node_types"].values()
    }
    assert len(groups) == 1
    assert all(groups)


def test_there_are_spot_and_lasting_gpu_workers_and_cpu_workers_within_the_ceiling() -> None:
    config = on_aws()
    workers = {
        name: kind
        for name, kind in config["available_node_types"].items()
        if name != config["head_node_type"]
    }
    spot = {name for name, kind in workers.items() if "InstanceMarketOptions" in kind["node_config"]}
    gpu = {name for name, kind in workers.items() if kind["resources"].get("GPU")}
    assert gpu & spot
    assert gpu - spot
    assert workers.keys() - gpu
    assert sum(kind["max_workers"] for kind in workers.values()) == config["max_workers"]
    assert config["available_node_types"][config["head_node_type"]]["resources"] == {"CPU": 0}


def test_what_a_node_installs_from_is_sent_and_nothing_large() -> None:
    mounts = on_aws()["file_mounts"]
    sent = {local for remote, local in mounts.items() if remote.startswith("/home/ubuntu/fissura/")}
    assert sent == {"pyproject.toml", "README.md", "LICENSE", "platform", "search_spaces"}
    assert {
        remote.removeprefix("/home/ubuntu/fissura/") for remote, local in mounts.items() if local in sent
    } == sent
    assert all((ROOT / local).exists() for local in sent)


def test_setting_a_node_up_twice_leaves_one_line_in_its_shell(tmp_path: Path) -> None:
    [line] = [command for command in on_aws()["setup_commands"] if ".bashrc" in command]
    for _ in range(2):
        subprocess.run(["bash", "-c", f"touch ~/.bashrc; {line}"], env={"HOME": str(tmp_path)}, check=True)
    assert len((tmp_path / ".bashrc").read_text().splitlines()) == 1
    show = 'source ~/.bashrc; echo "$RAY_AUTH_MODE ${PATH%%:*} $RAY_TMPDIR"'
    done = subprocess.run(
        ["bash", "-c", show], env={"HOME": str(tmp_path)}, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["token", f"{tmp_path}/env/bin", f"{tmp_path}/.fissura-ray"]


def test_the_guide_names_the_lines_to_edit() -> None:
    assert set(on_aws()["metadata"]) == {"image", "security_groups", "subnets", "storage"}
    assert (
        "edit five lines: the region, and under `metadata` the image, the security group, the subnets"
        in " ".join(GUIDE.split())
    )
