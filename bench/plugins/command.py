"""A command provider for clouds without machines: every command succeeds at once."""

from dataclasses import replace
from types import MappingProxyType

from sandbox.plugins.command.output import Output
from sandbox.plugins.command.plugin import RESOURCE_TYPES, CommandProvider
from sandbox.plugins.properties import Properties
from sandbox.plugins.provider import Operation


async def execute(
    operation: Operation, command: str, inputs: Properties, previous: object, output: Output
) -> None:
    # The program reads the id of the registry's data from the output of install-valkey.sh.
    await output.add("stdout", b"Registry 5eed")


class CommandProviderWithoutMachines(CommandProvider):
    resource_types = MappingProxyType(
        {token: replace(resource_type, execute=execute) for token, resource_type in RESOURCE_TYPES.items()}
    )


main = CommandProviderWithoutMachines.main
