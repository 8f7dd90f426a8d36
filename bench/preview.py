"""Measures where a preview spends its CPU time, beside an empty program.

usage: python -m bench.preview [--rounds 5] [--program DIR] [--json FILE]

Nothing needs to run: the AWS API is the sandbox's, without machines. The rounds are interleaved; figures are medians.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from bench.cloud_without_machines import (
    CloudWithoutMachines,
    Run,
    cloud_without_machines,
    enter_network_without_routes,
)
from tests.project import PROJECT

RESULTS = PROJECT / "bench/results/preview.json"
SDKS = (
    "import pulumi, pulumi_aws as aws, pulumi_command as command\n"
    "aws.ec2.Instance, aws.vpc.SecurityGroupIngressRule, aws.route53.Record, aws.iam.Role, aws.secretsmanager.Secret\n"
    "aws.servicequotas.get_service_quota, aws.get_availability_zones, command.remote.Command, command.local.Command\n"
)
"""The parts of the SDKs that the program uses."""
LARGE = (20, 100)


def measure_import(code: str, program: Path) -> float:
    """Returns the CPU seconds of a new interpreter that imports modules."""
    finished = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport time; print(time.process_time())"],
        cwd=program, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return float(finished.stdout)


def read_imports(program: Path) -> str:
    """Returns the import statements of the program."""
    text = (program / "__main__.py").read_text()
    return text[text.index("import pulumi") : text.index("end_on_interrupt()\n")]


def split(run: Run) -> dict[str, float]:
    """Returns the CPU seconds of a run's parts."""
    facts, samples = run.program, run.program["samples"]
    imported = facts.get("imported", facts["done"])
    after = facts["done"] - imported
    share = {part: samples.get(part, 0) / (sum(samples.values()) or 1) for part in ("own", "sdk", "imports")}
    parts = {
        "engine": run.cpu["engine"],
        "language host": run.cpu["language-python"],
        "imports": imported + after * share["imports"],
        "our program": after * share["own"],
        "the SDK's registration": after * share["sdk"],
        "aws provider": run.cpu.get("resource-aws", 0.0),
        "command provider": run.cpu.get("resource-command", 0.0),
    }
    return parts | {"total": sum(parts.values()), "wall": run.seconds, "load average": run.load}


def preview(cloud: CloudWithoutMachines, program: Path, stack: str, *options: str) -> dict[str, float]:
    return split(cloud.run(program, stack, "preview", "--show-sames=false", *options))


def measure(program: Path, rounds: int) -> dict[str, Any]:
    rows: dict[str, list[dict[str, float]]] = {}
    imports: dict[str, list[float]] = {"the SDKs": [], "our program": []}
    with cloud_without_machines() as cloud:
        empty = cloud.folder / "empty"
        empty.mkdir()
        runtime = f"runtime: {{name: python, options: {{toolchain: pip, virtualenv: {PROJECT}/.venv}}}}"
        (empty / "Pulumi.yaml").write_text(f"name: ant-media-cluster\n{runtime}\n")
        (empty / "__main__.py").write_text("import pulumi\n")
        shutil.copy(program / "Pulumi.sandbox.yaml", empty)
        cloud.create_stack("empty", empty)
        cloud.create_stack("bench", program)
        cloud.set_counts("bench", 2, 2)
        cloud.run(program, "bench", "up", "--yes", "--skip-preview")
        for stack, counts in (("new-small", (2, 2)), ("new-large", LARGE)):
            cloud.create_stack(stack, program)
            cloud.set_counts(stack, *counts)

        def record(name: str, folder: Path, stack: str, *options: str) -> None:
            rows.setdefault(name, []).append(preview(cloud, folder, stack, *options))
            print(name, rows[name][-1], file=sys.stderr, flush=True)

        for number in range(rounds):
            imports["the SDKs"].append(measure_import(SDKS, program))
            imports["our program"].append(measure_import(read_imports(program), program))
            record("empty program", empty, "empty")
            record("2+2 unchanged", program, "bench")
            record("2+2 unchanged, without refresh", program, "bench", "--refresh=false")
            record("2+2 new", program, "new-small")
            # Once, or twice where there is time: it is long.
            if number == 0:
                record("20+100 new", program, "new-large")
    return {
        "rounds": rounds,
        "measured": time.strftime("%F %T", time.gmtime()),
        "imports": imports,
        "previews": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.preview", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--program", type=Path, default=PROJECT, help="another checkout of the program")
    parser.add_argument("--json", type=Path, default=RESULTS, help="file for the results")
    options = parser.parse_args()
    enter_network_without_routes()
    results = measure(options.program.resolve(), options.rounds)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(
        json.dumps(
            {
                name: round(median(row["total"] for row in rows), 2)
                for name, rows in results["previews"].items()
            }
        )
    )


if __name__ == "__main__":
    main()
