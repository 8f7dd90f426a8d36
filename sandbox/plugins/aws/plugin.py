"""A stand-in for `pulumi-resource-aws`, the official AWS provider: the resource types that the program uses, over botocore.

An unknown resource type, function or property is an error that names it.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf import empty_pb2

from sandbox.plugins.aws import functions
from sandbox.plugins.aws.client import SETTINGS, AwsClient, get_region
from sandbox.plugins.aws.elastic_ip import EIP, EIP_ASSOCIATION
from sandbox.plugins.aws.iam import ACCESS_KEY, INSTANCE_PROFILE, ROLE, ROLE_POLICY, USER, USER_POLICY
from sandbox.plugins.aws.instance import INSTANCE
from sandbox.plugins.aws.network import (
    INTERNET_GATEWAY,
    ROUTE,
    ROUTE_TABLE,
    ROUTE_TABLE_ASSOCIATION,
    SUBNET,
    VPC,
)
from sandbox.plugins.aws.resource_type import AwsResourceType
from sandbox.plugins.aws.route53 import RECORD
from sandbox.plugins.aws.s3 import BUCKET, BUCKET_PUBLIC_ACCESS_BLOCK
from sandbox.plugins.aws.secrets_manager import SECRET
from sandbox.plugins.aws.security_groups import EGRESS_RULE, INGRESS_RULE, SECURITY_GROUP
from sandbox.plugins.properties import Properties
from sandbox.plugins.provider import Diff, Failures, Operation, Provider
from sandbox.plugins.server import Context

T = TypeVar("T")

RESOURCE_TYPES = (
    VPC, SUBNET, INTERNET_GATEWAY, ROUTE_TABLE, ROUTE, ROUTE_TABLE_ASSOCIATION, SECURITY_GROUP, INGRESS_RULE,
    EGRESS_RULE, INSTANCE, EIP, EIP_ASSOCIATION, RECORD, ROLE, ROLE_POLICY, INSTANCE_PROFILE, SECRET,
    USER, USER_POLICY, ACCESS_KEY, BUCKET, BUCKET_PUBLIC_ACCESS_BLOCK,
)  # fmt: skip

# botocore blocks, so each operation needs a thread. The engine runs a few dozen operations in parallel.
THREADS = ThreadPoolExecutor(max_workers=64)


@dataclass(frozen=True)
class ConfiguredResourceType:
    """A resource type with the client of the configured account."""

    description: AwsResourceType
    client: AwsClient

    def check(
        self, name: str, old: Properties, inputs: Properties, seed: bytes
    ) -> tuple[Properties, Failures]:
        return self.description.check(self.client.default_tags, name, old, inputs, seed)

    def diff(self, old_inputs: Properties, state: Properties, inputs: Properties) -> Diff:
        return self.description.diff(self.client.default_tags, old_inputs, state, inputs)

    def preview_outputs(self, state: Properties, old_inputs: Properties, inputs: Properties) -> Properties:
        client = self.client
        return self.description.preview_outputs(client.region, client.default_tags, state, old_inputs, inputs)

    def inputs_from_state(self, inputs: Properties, state: Properties) -> Properties:
        return self.description.inputs_from_state(inputs, state)

    async def create(self, operation: Operation, inputs: Properties) -> tuple[str, Properties]:
        return await _run_in_thread(lambda: self.description.create_resource(self.client, inputs))

    async def read(self, operation: Operation, resource_id: str, state: Properties) -> Properties | None:
        return await _run_in_thread(lambda: self.description.read_resource(self.client, resource_id, state))

    async def update(
        self,
        operation: Operation,
        resource_id: str,
        state: Properties,
        old_inputs: Properties,
        inputs: Properties,
    ) -> Properties:
        return await _run_in_thread(
            lambda: self.description.update_resource(self.client, resource_id, state, old_inputs, inputs)
        )

    async def delete(self, operation: Operation, resource_id: str, state: Properties) -> None:
        await _run_in_thread(lambda: self.description.delete_resource(self.client, resource_id, state))


async def _run_in_thread(work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(THREADS, work)


class AwsProvider(Provider):
    name = "aws"
    version = "7.51.1"

    def __init__(self) -> None:
        super().__init__()
        self.cancelled = threading.Event()

    def check_config(self, inputs: Properties) -> Failures:
        failures = dict.fromkeys(
            sorted(inputs.keys() - SETTINGS),
            "unknown setting of the aws provider: the sandbox's stand-in does not support it",
        )
        if not get_region(inputs):
            failures["region"] = (
                "Missing region information\n"
                "Make sure you have set your AWS region, e.g. `pulumi config set aws:region us-west-2`."
            )
        return failures

    def configure(self, inputs: Properties) -> None:
        self.client = AwsClient(inputs, self.cancelled)
        self.resource_types = {
            description.token: ConfiguredResourceType(description, self.client)
            for description in RESOURCE_TYPES
        }

    async def invoke(self, token: str, arguments: Properties) -> Properties:
        return await _run_in_thread(lambda: functions.call(self.client, token, arguments))

    async def Cancel(  # noqa: N802
        self, request: empty_pb2.Empty, context: Context
    ) -> empty_pb2.Empty:
        """Ends waiting. Running API calls finish, so that the state matches what exists."""
        self.cancelled.set()
        return empty_pb2.Empty()


main: Callable[[], None] = AwsProvider.main
