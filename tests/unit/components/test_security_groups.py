"""The security groups of the program."""

from cluster.port_table import SecurityGroup
from components.security_groups import DESCRIPTIONS


def test_every_security_group_has_a_description() -> None:
    assert [group for group in SecurityGroup if not DESCRIPTIONS.get(group)] == []
