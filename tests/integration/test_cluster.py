"""A search over the nodes of a cluster that is there already: two of them, on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fissura.data.synthetic import SyntheticSpec, write

pytestmark = pytest.mark.slow

# the cluster runs apart, since Ray reads its settings when it is imported
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def test_trials_run_on_the_nodes_of_a_running_cluster(tmp_path: Path) -> None:
    write(
        SyntheticSpec(train=6, val=2, test=2, height=48, width=48, crack_width=(1.5, 4.0)),
        tmp_path / "images",
    )
    settings = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=settings,
    ) as cluster:
        assert cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        searched = subprocess.run(
            [
                Path(sys.executable).with_name("fissura"), "search", "small_unet", "--json", "--trials", "4",
                "--data", f"synthetic:{tmp_path / 'images'}", "--storage", str(tmp_path / "studies"),
                "--cache", str(tmp_path / "cache"), "--profile", "demo", "--set", "model.width=4",
                "--set", "data.crop.size=32",
            ],
            capture_output=True, text=True, timeout=250, check=False, env=settings | {"RAY_ADDRESS": address},
        )  # fmt: skip
        cluster.communicate("", timeout=60)

    assert searched.returncode == 0, searched.stderr
    assert sum(json.loads(searched.stdout)["trials"].values()) == 4
    assert "2 at a time, 1 CPU" in searched.stderr, "both nodes are used"
