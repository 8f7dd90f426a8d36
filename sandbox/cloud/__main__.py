"""Runs the command line of `sandbox/bin/cloud`: `python -m sandbox.cloud`."""

from sandbox.cloud.command_line import main

main()
