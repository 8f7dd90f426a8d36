"""`python -m sandbox.cloud`: what `sandbox/bin/cloud` runs."""

from sandbox.cloud.front_door import main

main()
