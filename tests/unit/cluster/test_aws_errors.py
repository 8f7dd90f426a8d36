import pytest

from cluster.aws_errors import explain_creation_error

RUN_INSTANCES = "creating EC2 Instance: operation error EC2: RunInstances, https response error StatusCode: 400, api error "


@pytest.mark.parametrize(
    ("resource", "code", "begin"),
    [
        ("edge12", "VcpuLimitExceeded", "ant-media-cluster:edges.instanceType: the account's vCPU quota "),
        (
            "load-balancer",
            "InstanceLimitExceeded",
            "ant-media-cluster:loadBalancer.instanceType: the account ",
        ),
        ("database", "InsufficientInstanceCapacity", "ant-media-cluster:database.instanceType: AWS has no "),
        ("origin1", "OptInRequired", "ant-media-cluster:mediaImage: this account is not subscribed "),
        ("load-balancer", "OptInRequired", "ant-media-cluster:linuxImage: this account is not subscribed "),
        (
            "edge1",
            "is not eligible for Free Tier",
            "ant-media-cluster:edges: an AWS account on the free plan ",
        ),
        (
            "network-vpc",
            "VpcLimitExceeded",
            "ant-media-cluster:network: the account may not have another VPC ",
        ),
        (
            "edge1",
            "IncorrectModificationState",
            "ant-media-cluster:edges.volumeSize: AWS has not yet completed ",
        ),
        (
            "database",
            "VolumeModificationRateExceeded",
            "ant-media-cluster:database.volumeSize: AWS modifies ",
        ),
        ("load-balancer-ip", "AddressLimitExceeded", "The load balancer needs an Elastic IP, "),
    ],
)
def test_limit_of_the_account_names_the_setting(resource: str, code: str, begin: str) -> None:
    explanation = explain_creation_error(resource, f"{RUN_INSTANCES}{code}: words of AWS")
    assert explanation
    assert explanation.startswith(begin)


def test_other_errors_explain_themselves() -> None:
    assert (
        explain_creation_error("edge1", f"{RUN_INSTANCES}UnauthorizedOperation: You are not authorized")
        is None
    )
