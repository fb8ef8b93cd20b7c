"""cluster.kuberay.yaml: by KubeRay's own field names, and with no port or door open. It is read, not run."""

from typing import Any

import pytest
import ray
import yaml

from cluster.forms import ROOT

CLUSTER, POLICY = yaml.safe_load_all((ROOT / "cluster.kuberay.yaml").read_text())
SPEC = CLUSTER["spec"]
HEAD = SPEC["headGroupSpec"]
WORKERS = SPEC["workerGroupSpecs"]
# The fields of KubeRay's custom resource definition, ray.io/v1, of those objects that are used here.
FIELDS = {
    "spec": (SPEC, {"rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions",
                    "headGroupSpec", "workerGroupSpecs"}),
    "authOptions": (SPEC["authOptions"], {"mode"}),
    "autoscalerOptions": (SPEC["autoscalerOptions"], {"idleTimeoutSeconds", "version"}),
    "headGroupSpec": (HEAD, {"serviceType", "rayStartParams", "template"}),
    **{f"worker {group['groupName']}": (group, {"groupName", "replicas", "minReplicas", "maxReplicas",
                                                "rayStartParams", "template"}) for group in WORKERS},
}  # fmt: skip


def pods() -> list[dict[str, Any]]:
    """The pod specs of head and workers."""
    return [group["template"]["spec"] for group in (HEAD, *WORKERS)]


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_one_of_the_resource_definition(name: str) -> None:
    found, known = FIELDS[name]
    assert found.keys() <= known
    assert (CLUSTER["apiVersion"], CLUSTER["kind"]) == ("ray.io/v1", "RayCluster")


def test_its_ray_is_the_one_that_is_installed_and_every_request_needs_the_token() -> None:
    assert SPEC["rayVersion"] == ray.__version__
    assert SPEC["authOptions"] == {"mode": "token"}


def test_the_head_takes_no_trials_and_shows_its_dashboard_on_loopback_alone() -> None:
    assert HEAD["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0", "dashboard-host": "127.0.0.1"}
    assert HEAD["serviceType"] == "ClusterIP"
    for group in (HEAD, *WORKERS):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), (
            "KubeRay takes text alone"
        )


def test_there_are_gpu_and_cpu_workers_within_their_ends() -> None:
    limits = {
        group["groupName"]: group["template"]["spec"]["containers"][0]["resources"]["limits"]
        for group in WORKERS
    }
    assert limits["gpu"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in limits["cpu"]
    assert all(group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] for group in WORKERS)


def test_all_pods_see_the_same_shared_volume_at_shared() -> None:
    for pod in pods():
        [container], [volume] = pod["containers"], pod["volumes"]
        assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/shared"}]
        assert volume["persistentVolumeClaim"]["claimName"] == "fissura-shared"


def test_no_pod_runs_as_root_and_workers_have_no_rights_in_kubernetes() -> None:
    for pod in pods():
        assert pod["containers"][0]["securityContext"]["runAsNonRoot"]
        assert not pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"]
    assert not any(group["template"]["spec"]["automountServiceAccountToken"] for group in WORKERS)


def test_only_pods_of_the_cluster_reach_its_pods() -> None:
    pods_of_the_cluster = {"matchLabels": {"ray.io/cluster": CLUSTER["metadata"]["name"]}}
    assert POLICY["spec"] == {
        "podSelector": pods_of_the_cluster,
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": pods_of_the_cluster}]}],
    }
