"""Tests the program with Pulumi's official plugins in the sandbox. Both forges run it in CI, step by step.

Needs root and a machine that can download the plugins. Everywhere else the sandbox uses stand-ins, and the step
`plugins` fails. Uses only the standard library, because the step `set-up` installs everything else.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operations.command_line import new_parser, run_command
from tests.project import PROJECT

PULUMI = "sandbox/bin/pulumi"
ENGINE = PROJECT / ".venv/engine"
PLUGINS = PROJECT / ".venv/pulumi-home/plugins"
REPLACED = "edge1"
"""Machine that the step `replacement` replaces."""


class StepError(Exception):
    """A step found what must not be."""


@dataclass(frozen=True)
class Plugin:
    name: str
    file: Path
    used: str
    """When the engine last started it, as the engine reports it; empty if never."""

    @property
    def is_official(self) -> bool:
        """True for a compiled program. Stand-ins are shell scripts."""
        with self.file.open("rb") as file:
            return file.read(4) == b"\x7fELF"


def set_up() -> None:
    _run("make", "setup")


def first_up() -> None:
    _run("make", "up")


def plugins() -> None:
    """Prints which plugins ran. Fails if one of them is a stand-in."""
    found = find_plugins(json.loads(_capture(PULUMI, "plugin", "ls", "--json")))
    for plugin in found:
        kind = "official" if plugin.is_official else "STAND-IN"
        print(f"{plugin.name:28} {kind:10} last used: {plugin.used or 'never':26} {plugin.file.resolve()}")
    check_plugins(found)


def second_up() -> None:
    _run("make", "up")
    check_unchanged(_read_changes_of_last_update())


def preview() -> None:
    comment = _capture("make", "--silent", "preview", "FORMAT=markdown")
    print(comment)
    check_comment(comment)
    # The plain preview runs the policy pack in the language host.
    text = _capture("make", "--silent", "preview")
    print(text)
    if not re.search(r"\nResources:\n +\d+ unchanged\n", text):
        raise StepError("make preview reports changes of an unchanged stack")


def replacement() -> None:
    before = _read_instances()
    _run(PULUMI, "state", "taint", "--yes", before[REPLACED]["urn"])
    _run("make", "up")
    after = _read_instances()
    check_replacement(
        {name: instance["id"] for name, instance in before.items()},
        {name: instance["id"] for name, instance in after.items()},
    )
    second_up()


def down() -> None:
    _run("make", "down")


STEPS: Mapping[str, Callable[[], None]] = {
    "set-up": set_up,
    "first-up": first_up,
    "plugins": plugins,
    "second-up": second_up,
    "preview": preview,
    "replacement": replacement,
    "down": down,
}
"""In the order in which they run."""


def find_plugins(listed: Sequence[Mapping[str, str]]) -> list[Plugin]:
    """Returns the program's plugins. `listed` is the output of `pulumi plugin ls --json`."""
    found = [
        Plugin(
            f"{plugin['kind']}-{plugin['name']} {plugin['version']}",
            PLUGINS
            / f"{plugin['kind']}-{plugin['name']}-v{plugin['version']}/pulumi-{plugin['kind']}-{plugin['name']}",
            plugin.get("lastUsedTime", ""),
        )
        for plugin in listed
    ]
    # The engine prefers the language host beside it, which is part of the official release, and does not list it.
    bundled = ENGINE / "pulumi-language-python"
    if bundled.exists():
        found = [plugin for plugin in found if not plugin.name.startswith("language-")]
        found.append(Plugin("language-python", bundled, "at every run"))
    return found


def check_plugins(found: Sequence[Plugin]) -> None:
    used = [plugin for plugin in found if plugin.used]
    for name in ("language-python", "resource-aws", "resource-command"):
        if not any(plugin.name.startswith(name) for plugin in used):
            raise StepError(f"pulumi-{name} did not run")
    if stand_ins := [plugin.name for plugin in used if not plugin.is_official]:
        raise StepError(
            f"these plugins are stand-ins, so this run says nothing about the official ones: {', '.join(stand_ins)}"
        )


def check_unchanged(changes: Mapping[str, int]) -> None:
    """Checks the number of resources by operation in an update."""
    if set(changes) != {"same"}:
        raise StepError(f"make up changed an unchanged stack: {dict(changes)}")


def check_comment(comment: str) -> None:
    headline = comment.splitlines()[1]
    if headline != "### `sandbox`: nothing changes":
        raise StepError(f"the comment of an unchanged stack reports: {headline}")


def check_replacement(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Checks the ids of the machines by name before and after the replacement."""
    changed = sorted(name for name in {**before, **after} if before.get(name) != after.get(name))
    if changed != [REPLACED]:
        raise StepError(
            f"{REPLACED} must be replaced, and no other machine; replaced: {', '.join(changed) or 'none'}"
        )


def _read_changes_of_last_update() -> Mapping[str, int]:
    history = json.loads(_capture(PULUMI, "stack", "history", "--json", "--page-size", "10", "--page", "1"))
    # A refresh follows each update.
    return next(entry["resourceChanges"] for entry in history if entry["kind"] == "update")


def _read_instances() -> dict[str, Any]:
    resources = json.loads(_capture(PULUMI, "stack", "export"))["deployment"]["resources"]
    return {
        resource["urn"].rpartition("::")[2]: resource
        for resource in resources
        if resource["type"] == "aws:ec2/instance:Instance"
    }


def _run(*command: str) -> None:
    print(f"==> {' '.join(command)}", flush=True)
    subprocess.run(command, cwd=PROJECT, stdin=subprocess.DEVNULL, check=True)


def _capture(*command: str) -> str:
    print(f"==> {' '.join(command)}", flush=True)
    ran = subprocess.run(
        command, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False
    )
    if ran.returncode:
        print(ran.stdout, flush=True)
        ran.check_returncode()
    return ran.stdout


def main() -> int:
    parser = new_parser(
        "tests.official_plugins",
        __doc__ or "",
        {
            0: "passed",
            1: "a step failed",
            2: "wrong arguments",
            "other": "make or Pulumi failed; this is its exit code",
        },
    )
    parser.add_argument(
        "step",
        metavar="STEP",
        nargs="?",
        choices=STEPS,
        help=f"one of {', '.join(STEPS)}; default: all, in this order",
    )
    step: str | None = parser.parse_args().step
    for name in [step] if step else STEPS:
        try:
            STEPS[name]()
        except StepError as error:
            sys.exit(f"{name}: {error}")
    return 0


if __name__ == "__main__":
    run_command(main)
