"""Asks AWS about a cluster's machines and security group rules."""

from collections.abc import Mapping, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from operations.access import AccessProblem, find_own_address, read_access
from operations.aws_account import AwsClients, describe_instances, describe_rules
from operations.aws_failures import explain_aws_error
from operations.instances import Instance, read_instances
from operations.stack_state import StackState
from operations.status.cluster import Unreachable


class AccountCheck:
    """The AWS account of a stack."""

    def __init__(self, state: StackState) -> None:
        self._state = state

    def read_instances(self) -> Sequence[Instance] | Unreachable:
        try:
            aws = AwsClients(self._state.provider)
            return read_instances(self._state, describe_instances(aws, self._state))
        except (BotoCoreError, ClientError) as error:
            return Unreachable(explain_aws_error(error))

    def find_access_problem(
        self, ports: Sequence[int], configuration: Mapping[str, Any]
    ) -> AccessProblem | None:
        """Returns why AWS does not admit this machine to ports, or None if AWS admits this machine, or does not answer."""
        try:
            rules = describe_rules(AwsClients(self._state.provider), self._state)
        except (BotoCoreError, ClientError):
            return None  # `read_instances` reports it
        access = read_access(self._state, configuration, rules, ports)
        return access.find_problem(ports, find_own_address())
