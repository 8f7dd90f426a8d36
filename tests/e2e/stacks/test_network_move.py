"""A change of the network on a stack that exists. The sandbox refuses what AWS refuses: to delete or detach what is in use."""

from collections import Counter

from tests.e2e.aws_account import AwsAccount
from tests.e2e.running_cluster import Cluster
from tests.e2e.small_stack import EXCLUDE_SCRIPTS, SmallStack


def test_stack_moves_to_another_vpc_in_one_update_and_leaves_nothing_behind(
    cluster: Cluster, account: AwsAccount
) -> None:
    others = account.list_resources()
    stack = SmallStack(cluster, "moving", 87)
    stack.up(*EXCLUDE_SCRIPTS)
    resources = account.list_resources() - others
    ids = stack.get_physical_ids()

    stack.pulumi("config", "set", "--path", "ant-media-cluster:network.cidr", "10.88.0.0/16").check()
    stack.up(*EXCLUDE_SCRIPTS)

    assert stack.machine("origin1").private_address == "10.88.0.8"
    moved = stack.get_physical_ids()
    assert moved["load-balancer-ip"] == ids["load-balancer-ip"]
    assert moved["network-vpc"] != ids["network-vpc"]
    moved_resources = account.list_resources() - others
    assert Counter(kind for kind, _ in moved_resources) == Counter(kind for kind, _ in resources)
    stack.recover_and_destroy()
