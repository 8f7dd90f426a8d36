"""A local cloud without a cluster. The tests create stacks in it, with the secrets of the stack `sandbox`."""

import pytest

from tests.e2e.conftest import BringUp
from tests.e2e.small_stack import start_cloud


@pytest.fixture(scope="session")
def bring_up() -> BringUp:
    return start_cloud
