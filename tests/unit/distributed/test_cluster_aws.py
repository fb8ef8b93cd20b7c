"""cluster.yaml's AWS form, as far as nodes that exist: Ray's own AWS code makes them, in moto's EC2."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import boto3
import pytest
from moto import mock_aws
from ray.autoscaler._private.providers import _clear_provider_cache, _get_node_provider
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

from cluster.forms import on_aws

# moto's model of EC2 is imported in tens of seconds
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """cluster.yaml, edited as the guide says, after Ray's bootstrap in an account with that network."""
    with pytest.MonkeyPatch.context() as patch, mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            patch.setenv(name, "testing")
        patch.setenv(
            "HOME", str(tmp_path_factory.mktemp("home"))
        )  # Ray keeps the key pair that it makes in ~/.ssh
        plain = on_aws()
        ec2 = boto3.resource("ec2", region_name=plain["provider"]["region"])
        [image, *_] = ec2.images.all()
        network = ec2.create_vpc(CidrBlock="10.0.0.0/16")
        subnet = ec2.create_subnet(VpcId=network.id, CidrBlock="10.0.1.0/24")
        ec2.meta.client.modify_subnet_attribute(SubnetId=subnet.id, MapPublicIpOnLaunch={"Value": True})
        group = ec2.create_security_group(GroupName="cluster", Description="cluster", VpcId=network.id)
        for kind in plain["available_node_types"].values():
            kind["node_config"] |= {
                "ImageId": image.id,
                "SubnetIds": [subnet.id],
                "SecurityGroupIds": [group.id],
            }
        validate_config(prepare_config(deepcopy(plain)))
        provider = _get_node_provider(plain["provider"], plain["cluster_name"])
        _clear_provider_cache()
        yield type(provider).bootstrap_config(
            provider.fillout_available_node_types_resources(prepare_config(plain))
        )


def test_ray_makes_the_nodes_that_the_file_names(config: dict[str, Any]) -> None:
    provider = _get_node_provider(config["provider"], config["cluster_name"])
    ec2 = boto3.resource("ec2", region_name=config["provider"]["region"])
    [group] = ec2.security_groups.filter(GroupNames=["cluster"])
    lifecycles = {"head": None, "gpu": None, "gpu_spot": "spot", "cpu": "spot"}
    assert config["available_node_types"].keys() == lifecycles.keys()
    for name, kind in config["available_node_types"].items():
        role = "head" if name == config["head_node_type"] else "worker"
        tags = {TAG_RAY_NODE_KIND: role, TAG_RAY_USER_NODE_TYPE: name}
        made = provider.create_node(kind["node_config"], tags, 2)
        assert set(provider.non_terminated_nodes(tags)) == set(made)
        for node in map(ec2.Instance, made):
            assert node.instance_type == on_aws()["available_node_types"][name]["node_config"]["InstanceType"]
            assert node.instance_lifecycle == lifecycles[name]
            assert [one["GroupId"] for one in node.security_groups] == [group.id]
            assert [(disk.encrypted, disk.size) for disk in node.volumes.all()] == [(True, 200)]
            assert node.metadata_options["HttpTokens"] == "required", "IMDSv2 alone"
    provider.terminate_nodes(provider.non_terminated_nodes({}))
    assert provider.non_terminated_nodes({}) == []
    assert {one.state["Name"] for one in ec2.instances.all()} <= {"shutting-down", "terminated"}, (
        "none is kept"
    )


def test_ray_makes_no_security_group_of_its_own_and_gives_rights_in_the_account_to_the_head_alone(
    config: dict[str, Any],
) -> None:
    ec2 = boto3.resource("ec2", region_name=config["provider"]["region"])
    assert {group.group_name for group in ec2.security_groups.all()} == {"default", "cluster"}
    assert "IamInstanceProfile" in config["head_node"]
    assert not any(
        "IamInstanceProfile" in kind["node_config"] for kind in config["available_node_types"].values()
    )
    policies = boto3.client("iam").list_attached_role_policies(RoleName="ray-autoscaler-v1")[
        "AttachedPolicies"
    ]
    # docs/security.md says so
    assert {one["PolicyName"] for one in policies} == {"AmazonEC2FullAccess", "AmazonS3FullAccess"}
