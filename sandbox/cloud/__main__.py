"""`python -m sandbox.cloud`: what `sandbox/bin/cloud` runs."""

from sandbox.cloud.command_line import main

main()
