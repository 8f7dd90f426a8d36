"""The settings that sandbox/bin/pulumi uses: those of the stack's file in the checkout, and the sandbox's secrets."""

import os
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.project import PROJECT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a stack's file, and a state folder beside it. Its cloud runs no command."""
    checkout = tmp_path / "checkout"
    (checkout / "sandbox/bin").mkdir(parents=True)
    for name in ("pulumi", "operator.sh"):
        (checkout / "sandbox/bin" / name).write_bytes((PROJECT / "sandbox/bin" / name).read_bytes())
        (checkout / "sandbox/bin" / name).chmod(0o755)
    (checkout / "sandbox/bin/cloud").write_text("#!/bin/sh\n")
    (checkout / "sandbox/bin/cloud").chmod(0o755)
    for name in (".venv", "operations", "cluster", "sandbox/__init__.py", "sandbox/cloud"):
        (checkout / name).symlink_to(PROJECT / name)
    (tmp_path / "state/pulumi").mkdir(parents=True)
    (tmp_path / "state/acme").mkdir()
    (tmp_path / "state/acme/roots.pem").write_text("")
    write(checkout, 2)
    return checkout


def write(checkout: Path, edges: int) -> None:
    config = {"ant-media-cluster:edges": {"count": edges}}
    (checkout / "Pulumi.sandbox.yaml").write_text(yaml.safe_dump({"config": config}))


def preview(checkout: Path) -> int:
    """Runs a preview and returns the number of edges in its settings."""
    state = checkout.parent / "state"
    subprocess.run(
        [checkout / "sandbox/bin/pulumi", "preview"],
        env={**os.environ, "SANDBOX_STATE": str(state), "PULUMI_STACK": "sandbox"},
        check=True,
    )
    settings = yaml.safe_load((state / "pulumi/Pulumi.sandbox.yaml").read_text())
    return int(settings["config"]["ant-media-cluster:edges"]["count"])


def test_an_edit_before_a_config_set_counts(checkout: Path) -> None:
    assert preview(checkout) == 2
    write(checkout, 3)
    settings = checkout.parent / "state/pulumi/Pulumi.sandbox.yaml"
    # `pulumi config set` makes the settings newer than the edit.
    os.utime(settings, (time.time() + 60, time.time() + 60))
    assert preview(checkout) == 3


def test_a_config_set_stays_until_the_file_is_edited(checkout: Path) -> None:
    assert preview(checkout) == 2
    settings = checkout.parent / "state/pulumi/Pulumi.sandbox.yaml"
    settings.write_text(settings.read_text().replace("count: 2", "count: 4"))
    assert preview(checkout) == 4
    os.utime(checkout / "Pulumi.sandbox.yaml")
    assert preview(checkout) == 4
