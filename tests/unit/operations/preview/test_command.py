"""`python -m operations.preview`: output, exit code and errors."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from operations.preview.changes import Preview, parse_preview
from operations.preview.report import PolicyResult, render_comment
from policy.rules import RULES, find_violations, read_config

PREVIEWS = Path(__file__).parent / "previews"


def load_preview(name: str) -> Preview:
    return parse_preview((PREVIEWS / f"{name}.json").read_text())


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "operations.preview", "sandbox", *command],
        capture_output=True,
        text=True,
        env={**os.environ, "COMMIT": "", **environment},
    )


def test_prints_comment() -> None:
    ran = run("echo", '{"steps": []}')
    assert (ran.returncode, ran.stdout) == (
        0,
        render_comment("sandbox", Preview([], ""), PolicyResult(len(RULES), ())),
    )


def test_policy_violation_is_in_the_comment_and_fails() -> None:
    # In the recording, unchanged resources have no tags.
    preview = load_preview("third-edge-goes")
    found = find_violations(preview.resources_after, read_config("sandbox"))
    ran = run("cat", str(PREVIEWS / "third-edge-goes.json"))
    assert (ran.returncode, ran.stdout) == (
        1,
        render_comment("sandbox", preview, PolicyResult(len(RULES), found)),
    )
    assert "Do not deploy this" in ran.stdout


def test_price_list_adds_cost_to_the_comment(tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(
        '{"currency": "USD", "hoursAMonth": 1, "instanceHour": {"c5.xlarge": 100, "t3.small": 0, "t3.micro": 0},'
        ' "volumeGibMonth": 0, "publicIpv4Hour": 0, "secretMonth": 0}'
    )
    ran = run("cat", str(PREVIEWS / "third-edge-goes.json"), PRICES=str(prices))
    assert "**Cost: ≈ 500.00 → 400.00 USD a month (-100.00)**\n" in ran.stdout
    prices.write_text("{}")
    refused = run("false", PRICES=str(prices))
    assert refused.returncode == 1
    assert "\nprices.json: secretMonth: is missing; give a number" in refused.stdout
    missing = run("false", PRICES="nowhere.json")
    assert "PRICES=nowhere.json: No such file or directory" in missing.stderr


def test_failed_preview_prints_comment_and_fails() -> None:
    ran = run("sh", "-c", f"cat {PREVIEWS / 'wrong-settings.json'}; exit 255")
    assert (ran.returncode, ran.stdout) == (255, (PREVIEWS / "wrong-settings.md").read_text())


def test_interrupted_preview_lets_the_engine_finish_and_prints_comment() -> None:
    engine = (
        "trap 'echo engine ended >&2; exit 0' INT; echo begun >&2; echo >&3; while :; do sleep 0.05; done"
    )
    ready_read, ready_write = os.pipe()
    # The engine inherits no descriptor: it opens this one by its path and reports that it runs.
    engine = engine.replace("&3", f"/proc/{os.getpid()}/fd/{ready_write}")
    command = [sys.executable, "-m", "operations.preview", "sandbox", "sh", "-c", engine]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell ignores SIGINT, and the command would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as ran:
        os.read(ready_read, 1)
        ran.send_signal(signal.SIGINT)
        stdout, stderr = ran.communicate(timeout=300)
    os.close(ready_read)
    os.close(ready_write)
    assert (ran.returncode, stderr) == (130, "begun\nengine ended\n")
    assert stdout.startswith(
        "<!-- ant-media-cluster preview: sandbox -->\n### `sandbox`: the preview failed\n"
    )
    assert "the preview was interrupted" in stdout


@pytest.mark.parametrize("command", [("echo", '{"steps": [{}]}'), ("no-such-engine",)])
def test_unexpected_error_prints_comment_and_fails(command: Sequence[str]) -> None:
    ran = run(*command)
    assert ran.returncode == 1
    assert ran.stdout.startswith(
        "<!-- ant-media-cluster preview: sandbox -->\n### `sandbox`: the preview failed\n"
    )


def test_commit_is_in_the_last_line() -> None:
    ran = run("echo", '{"steps": []}', COMMIT="0123456789abcdef")
    assert ran.stdout.endswith("\n\nAt commit `01234567`.\n")


@pytest.mark.parametrize("stdout", ["", "{}"])
def test_error_before_the_program_starts_is_in_the_comment_and_on_standard_error(
    stdout: str,
) -> None:
    ran = run("sh", "-c", f"echo '{stdout}'; echo 'error: no stack selected' >&2; exit 255")
    assert ran.stdout.endswith(
        "### `sandbox`: the preview failed\n\n```text\nerror: no stack selected\n```\n"
    )
    assert (ran.returncode, ran.stderr) == (255, "error: no stack selected\n")
