"""A sandbox of a benchmark's own, with the tests' helpers for a running cluster (E2E_STATE, E2E_ADDRESS)."""

import contextlib
import signal
import sys
from collections.abc import Generator

from tests.e2e.running_cluster import Cluster, exclusive_run


@contextlib.contextmanager
def own_sandbox() -> Generator[Cluster]:
    """Brings a cluster up, and takes it down at the end."""
    # SIGTERM, too, takes the sandbox down.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cluster = Cluster()
    with exclusive_run():
        cluster.tear_down()  # remains of a killed run
        print("Starting a sandbox", file=sys.stderr, flush=True)
        try:
            cluster.bring_up().check()
            yield cluster
        finally:
            cluster.tear_down()
