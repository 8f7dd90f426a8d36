"""The help of `sandbox/bin/cloud`."""

import os
import subprocess

import pytest

from tests.sandbox.cloud.local_cloud import CLOUD

COMMANDS = """\
    start     Build missing machine images and start the cloud.
                sandbox/bin/cloud start
    stop      Stop the cloud and delete its machines; cached images remain.
                sandbox/bin/cloud stop
    status    List the machines and the rejected egress traffic.
                sandbox/bin/cloud status
    exec      Run a command with the cloud's network, DNS, credentials and CA certificates (default: bash).
                sandbox/bin/cloud exec -- curl https://live.ant-media.test:5443/LiveApp/
    shell     Run a command on a machine as root (default: a login shell).
                sandbox/bin/cloud shell edge1
    logs      Print a machine's console (default: the cloud's log).
                sandbox/bin/cloud logs edge1
    address   Assign a loopback address to a stack's domain and print it.
                sandbox/bin/cloud address pr-123 pr-123.ant-media.test
    help      Print this help, or the help of one command.
                sandbox/bin/cloud help shell
"""
SHELL = """\
usage: sandbox/bin/cloud shell [-h] MACHINE ...

Run a command on a machine as root (default: a login shell).

positional arguments:
  MACHINE     name in the stack (edge1), full name or instance id
  CMD …       command and arguments

options:
  -h, --help  show this help message and exit

example: sandbox/bin/cloud shell edge1
"""


def run(*arguments: str) -> tuple[int, str]:
    """Returns exit code and output."""
    done = subprocess.run(
        [CLOUD, *arguments],
        env={**os.environ, "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("arguments", [(), ("help",), ("--help",)])
def test_help_lists_all_commands_with_examples(arguments: tuple[str, ...]) -> None:
    exit_code, output = run(*arguments)
    assert exit_code == 0
    assert COMMANDS in output


@pytest.mark.parametrize("arguments", [("help", "shell"), ("shell", "--help")])
def test_help_describes_one_command(arguments: tuple[str, ...]) -> None:
    assert run(*arguments) == (0, SHELL)


@pytest.mark.parametrize("arguments", [("restart",), ("help", "restart")])
def test_unknown_command_is_rejected_with_the_list_of_commands(arguments: tuple[str, ...]) -> None:
    exit_code, output = run(*arguments)
    assert exit_code == 2
    assert "invalid choice: 'restart' (choose from" in output
