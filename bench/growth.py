"""Measures preview, up, destroy and the size of the state with 1, 10, 50 and 100 edges.

usage: python -m bench.growth [--edges 1 10 50 100] [--program DIR] [--json FILE]

Nothing needs to run: the AWS API is the sandbox's, without machines, and every remote script succeeds at once. Each size is
measured once, on a stack of its own.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bench.cloud_without_machines import cloud_without_machines, enter_network_without_routes
from tests.project import PROJECT

RESULTS = PROJECT / "bench/results/growth.json"
SIZES = (1, 10, 50, 100)
ORIGINS = 2


def measure(program: Path, edges: int) -> dict[str, Any]:
    stack = f"edges-{edges}"
    with cloud_without_machines() as cloud:
        cloud.create_stack(stack, program)
        cloud.set_counts(stack, ORIGINS, edges)
        up = cloud.run(program, stack, "up", "--yes", "--skip-preview", "--suppress-progress")
        state = cloud.read_state(stack)
        deployment = json.loads(state)["checkpoint"]["latest"]
        preview = cloud.run(program, stack, "preview", "--show-sames=false")
        destroy = cloud.run(program, stack, "destroy", "--yes", "--skip-preview", "--suppress-progress")
    return {
        "edges": edges,
        "resources": len(deployment["resources"]),
        "state_bytes": len(state),
        **{name: {"seconds": run.seconds, "load": run.load, "cpu": run.cpu} for name, run in (("up", up), ("preview", preview), ("destroy", destroy))},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.growth", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--edges", type=int, nargs="+", default=SIZES)
    parser.add_argument("--program", type=Path, default=PROJECT, help="another checkout of the program")
    parser.add_argument("--json", type=Path, default=RESULTS, help="file for the results")
    options = parser.parse_args()
    enter_network_without_routes()
    results: list[dict[str, Any]] = []
    for edges in options.edges:
        results.append(measure(options.program.resolve(), edges))
        options.json.write_text(json.dumps(results, indent=1) + "\n")
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
