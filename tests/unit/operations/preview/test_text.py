"""The preview as text: which lines are whole, and the exit code."""

import subprocess
import sys

import pytest

from cluster.machine_scripts import pack
from operations.preview.text import shorten
from tests.project import PROJECT

NAMES = " ".join(f"application-{number}" for number in range(57))
LONG = "x" * 400


@pytest.mark.parametrize(
    "line",
    [
        f"          +     http-request deny deny_status 404 unless {{ path,field(2,/) -m str {NAMES} }}",
        f"          -     http-request deny deny_status 404 unless {{ path,field(2,/) -m str {NAMES} }}",
        f"                http-request deny deny_status 404 unless {{ path,field(2,/) -m str {NAMES} }}",
        f'      ~ create: "{LONG}a" => "{LONG}b"',
        f'      + description: "{LONG}"',
        f'      - description: "{LONG}"',
        f'          + [3]: "{LONG}"',
        '        create: "sudo timeout 600"',
        f"\x1b[0m\x1b[38;5;2m          +     http-request deny unless {{ {NAMES} }}\x1b[0m",
        "\x1b[38;5;2m" * 100 + '        create: "short"',
    ],
)
def test_changed_and_short_lines_are_whole(line: str) -> None:
    assert shorten(line) == line


@pytest.mark.parametrize("start", ['        stdin   : "', '    [2]: "', '    a.b/c-d: "'])
def test_long_text_without_a_change_is_cut(start: str) -> None:
    assert shorten(f'{start}{LONG}"') == f"{start}{LONG}"[:300] + '..."'


@pytest.mark.parametrize("sign", ["+", "-"])
def test_changed_compressed_scripts_are_cut(sign: str) -> None:
    line = f"          {sign} {pack({'a.sh': LONG * 100}).splitlines()[1]}{LONG}"
    assert shorten(line) == line[:300] + "..."


def test_cut_text_keeps_its_color() -> None:
    start, color = '        stdin: "', "\x1b[0m\x1b[38;5;2m"
    cut = shorten(f'{color}{start[:-1]}{color}"{LONG}"')
    assert cut == color + f"{start}{LONG}"[:300] + '..."\x1b[0m'


def test_cut_text_ends_with_a_quotation_mark_that_is_not_escaped() -> None:
    text = "a" + r"\n" * 200
    assert shorten(f'  stdin: "{text}"').endswith('\\n..."')
    assert shorten(f'   stdin: "{text}"').endswith('\\n..."')


def run(engine: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "operations.preview.text", "bash", "-c", engine, "pulumi", "preview"]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)


def test_engine_cuts_no_line() -> None:
    assert run('echo "$@"').stdout == "preview --diff --show-full-output\n"


def test_exit_code_is_that_of_the_engine() -> None:
    ran = run("echo begun; echo failed >&2; exit 255")
    assert (ran.returncode, ran.stdout, ran.stderr) == (255, "begun\n", "failed\n")


def test_make_preview_prints_whole_lines() -> None:
    dry = subprocess.run(
        ["make", "--dry-run", "preview", "PLAN=dev.plan.json"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "-m operations.preview.text sandbox/bin/pulumi preview --policy-pack policy" in dry.stdout
