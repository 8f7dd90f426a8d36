"""A stand-in for `pulumi-resource-aws`, the official AWS provider, over boto3: the few kinds that the program uses.

A kind, a function or a property that it does not have is an error that names it.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf import empty_pb2

from sandbox.plugins.aws import functions
from sandbox.plugins.aws.client import SETTINGS, Cloud, region_of
from sandbox.plugins.aws.elastic_ip import EIP, EIP_ASSOCIATION
from sandbox.plugins.aws.iam import INSTANCE_PROFILE, ROLE, ROLE_POLICY
from sandbox.plugins.aws.instance import INSTANCE
from sandbox.plugins.aws.network import (
    INTERNET_GATEWAY,
    ROUTE,
    ROUTE_TABLE,
    ROUTE_TABLE_ASSOCIATION,
    SUBNET,
    VPC,
)
from sandbox.plugins.aws.resource_type import Kind
from sandbox.plugins.aws.route53 import RECORD
from sandbox.plugins.aws.secrets_manager import SECRET
from sandbox.plugins.aws.security_groups import EGRESS_RULE, INGRESS_RULE, SECURITY_GROUP
from sandbox.plugins.properties import Properties
from sandbox.plugins.provider import Diff, Failures, Provider, Run
from sandbox.plugins.server import Context

T = TypeVar("T")

KINDS = (
    VPC, SUBNET, INTERNET_GATEWAY, ROUTE_TABLE, ROUTE, ROUTE_TABLE_ASSOCIATION, SECURITY_GROUP, INGRESS_RULE,
    EGRESS_RULE, INSTANCE, EIP, EIP_ASSOCIATION, RECORD, ROLE, ROLE_POLICY, INSTANCE_PROFILE, SECRET,
)  # fmt: skip

# boto3 blocks, so each operation under way takes a thread; the engine has a few dozen at a time.
THREADS = ThreadPoolExecutor(max_workers=64)


@dataclass(frozen=True)
class Configured:
    """A kind in the configured account: what the protocol asks for."""

    kind: Kind
    cloud: Cloud

    def check(
        self, name: str, old: Properties, inputs: Properties, seed: bytes
    ) -> tuple[Properties, Failures]:
        return self.kind.check(self.cloud.default_tags, name, old, inputs, seed)

    def diff(self, old_inputs: Properties, state: Properties, inputs: Properties) -> Diff:
        return self.kind.diff(old_inputs, state, inputs)

    def plan(self, state: Properties, old_inputs: Properties, inputs: Properties) -> Properties:
        return self.kind.plan(self.cloud.region, state, old_inputs, inputs)

    def inputs_of(self, inputs: Properties, state: Properties) -> Properties:
        return self.kind.inputs_of(inputs, state)

    async def create(self, run: Run, inputs: Properties) -> tuple[str, Properties]:
        return await _thread(lambda: self.kind.create_now(self.cloud, inputs))

    async def read(self, run: Run, resource_id: str, state: Properties) -> Properties | None:
        return await _thread(lambda: self.kind.read_now(self.cloud, resource_id, state))

    async def update(
        self, run: Run, resource_id: str, state: Properties, old_inputs: Properties, inputs: Properties
    ) -> Properties:
        return await _thread(lambda: self.kind.update_now(self.cloud, resource_id, state, old_inputs, inputs))

    async def delete(self, run: Run, resource_id: str, state: Properties) -> None:
        await _thread(lambda: self.kind.delete_now(self.cloud, resource_id, state))


async def _thread(work: Callable[[], T]) -> T:
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
            "unknown setting of the aws provider: the sandbox's stand-in does not have it",
        )
        if not region_of(inputs):
            failures["region"] = (
                "Missing region information\n"
                "Make sure you have set your AWS region, e.g. `pulumi config set aws:region us-west-2`."
            )
        return failures

    def configure(self, inputs: Properties) -> None:
        self.cloud = Cloud(inputs, self.cancelled)
        self.kinds = {kind.token: Configured(kind, self.cloud) for kind in KINDS}

    async def invoke(self, token: str, arguments: Properties) -> Properties:
        return await _thread(lambda: functions.call(self.cloud, token, arguments))

    async def Cancel(  # noqa: N802
        self, request: empty_pb2.Empty, context: Context
    ) -> empty_pb2.Empty:
        """Lets waiting end. What is under way at the API is finished, so that the state tells what exists."""
        self.cancelled.set()
        return empty_pb2.Empty()


main: Callable[[], None] = AwsProvider.main
