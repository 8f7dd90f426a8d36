"""A change of the network on a stack that exists. Its first updates and its destroy are interrupted.

The sandbox refuses what AWS refuses: to delete or detach what is in use.
"""

from collections import Counter
from collections.abc import Callable

import pytest

from tests.e2e.aws_account import AwsAccount, Resource
from tests.e2e.running_cluster import Cluster, wait_until
from tests.e2e.small_stack import EXCLUDE_SCRIPTS, SmallStack, interrupt, terminate


@pytest.fixture(scope="module")
def others(account: AwsAccount) -> set[Resource]:
    """The account's resources without this module's stack."""
    return account.list_resources()


@pytest.fixture(scope="module")
def stack(cluster: Cluster, others: set[Resource]) -> SmallStack:
    return SmallStack(cluster, "moving", 87)


@pytest.mark.parametrize(
    ("machine", "interruption", "excluded"),
    [("load-balancer", interrupt, ("--exclude", "**::origin1")), ("origin1", terminate, ())],
)
def test_update_that_was_interrupted_leaves_nothing_to_recover(
    stack: SmallStack, machine: str, interruption: Callable[[int], object], excluded: tuple[str, ...]
) -> None:
    stack.run_until(f"Instance {machine} creating", interruption, "up", *EXCLUDE_SCRIPTS, *excluded)
    assert stack.recover().check() == ""


def test_stack_moves_to_another_vpc_in_one_update_and_leaves_nothing_behind(
    account: AwsAccount, stack: SmallStack, others: set[Resource]
) -> None:
    stack.up(*EXCLUDE_SCRIPTS)
    resources = account.list_resources() - others
    ids = stack.get_physical_ids()

    stack.set_settings(network={"cidr": "10.88.0.0/16", "zones": 2})
    stack.up(*EXCLUDE_SCRIPTS)

    # The local cloud writes the list of machines a little later.
    wait_until(lambda: stack.machine("origin1").private_address == "10.88.0.8")
    moved = stack.get_physical_ids()
    assert moved["load-balancer-ip"] == ids["load-balancer-ip"]
    assert moved["network-vpc"] != ids["network-vpc"]
    moved_resources = account.list_resources() - others
    assert Counter(kind for kind, _ in moved_resources) == Counter(kind for kind, _ in resources)


def test_interrupted_destroy_can_be_resumed(
    account: AwsAccount, stack: SmallStack, others: set[Resource]
) -> None:
    stack.run_until("Instance origin1 deleting", interrupt, "destroy")
    stack.recover_and_destroy()
    assert account.list_resources() == others
