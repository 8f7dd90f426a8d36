"""The cluster's Pulumi components."""

import pulumi.log
import pulumi.runtime.resource as registration
from pulumi.runtime.proto import source_pb2


def _ignore(*_: object, **__: object) -> None: ...


# Two costs of each registration in the SDK, together a third of its CPU time. It sends Python's whole stack to the engine,
# which keeps it in the state and shows it nowhere. And it sends debug messages, which only `pulumi --debug` shows, and waits
# for the answer to each.
registration._get_stack_trace = source_pb2.StackTrace  # pyright: ignore[reportPrivateUsage]
pulumi.log.debug = _ignore
