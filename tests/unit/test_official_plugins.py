"""What the job with the official plugins accepts and refuses."""

from pathlib import Path

import pytest

from tests import official_plugins
from tests.official_plugins import (
    Plugin,
    StepError,
    check_comment,
    check_plugins,
    check_replacement,
    check_unchanged,
    find_plugins,
)

PREVIEWS = Path(__file__).parent / "operations/preview/previews"
LISTED = [
    {"name": "aws", "kind": "resource", "version": "7.51.1", "lastUsedTime": "2026-11-26T06:27:15.855Z"},
    {"name": "command", "kind": "resource", "version": "1.2.1", "lastUsedTime": "2026-11-26T06:27:20.863Z"},
    {"name": "python", "kind": "language", "version": "3.259.0", "lastUsedTime": "2026-11-26T06:27:11.999Z"},
]


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, stand_in: str = "") -> list[Plugin]:
    """Installs the three plugins, one of them a stand-in, and returns them as the step finds them."""
    monkeypatch.setattr(official_plugins, "PLUGINS", tmp_path)
    monkeypatch.setattr(official_plugins, "ENGINE", tmp_path)
    for plugin in LISTED:
        name = f"{plugin['kind']}-{plugin['name']}"
        folder = tmp_path / f"{name}-v{plugin['version']}"
        folder.mkdir()
        (folder / f"pulumi-{name}").write_bytes(
            b"#!/usr/bin/env bash\n" if name == stand_in else b"\x7fELF\x02\x01"
        )
    return find_plugins(LISTED)


def test_official_plugins_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_plugins(install(tmp_path, monkeypatch))


@pytest.mark.parametrize("name", ["resource-aws", "resource-command", "language-python"])
def test_stand_in_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StepError, match=f"stand-ins, .*: {name} "):
        check_plugins(install(tmp_path, monkeypatch, stand_in=name))


def test_plugin_that_did_not_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = install(tmp_path, monkeypatch)
    unused = [
        Plugin(plugin.name, plugin.file, "") if "command" in plugin.name else plugin for plugin in found
    ]
    with pytest.raises(StepError, match="pulumi-resource-command did not run"):
        check_plugins(unused)


def test_language_host_of_the_release_serves_instead_of_a_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, stand_in="language-python")
    (tmp_path / "pulumi-language-python").write_bytes(b"\x7fELF\x02\x01")
    check_plugins(find_plugins(LISTED))


def test_change_of_an_unchanged_stack_is_refused() -> None:
    check_unchanged({"same": 74})
    with pytest.raises(StepError, match="'update': 2"):
        check_unchanged({"same": 72, "update": 2})


def test_comment_must_report_that_nothing_changes() -> None:
    check_comment((PREVIEWS / "nothing.md").read_text())
    with pytest.raises(StepError, match="2 to change, 6 scripts"):
        check_comment((PREVIEWS / "larger-edges.md").read_text())


def test_exactly_one_machine_must_be_replaced() -> None:
    before = {"edge1": "i-1", "edge2": "i-2"}
    check_replacement(before, {"edge1": "i-3", "edge2": "i-2"})
    for after in (before, {"edge1": "i-3", "edge2": "i-4"}, {"edge2": "i-2", "edge3": "i-1"}):
        with pytest.raises(StepError, match="edge1 must be replaced, and no other machine"):
            check_replacement(before, after)
