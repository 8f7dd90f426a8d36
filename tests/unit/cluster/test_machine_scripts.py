"""The bundle of scripts that install-scripts.sh reads."""

import re

import pytest

from cluster.machine_scripts import (
    ScriptFolder,
    pack,
    pack_scripts,
    read_script,
    short_digest,
    unpack_scripts,
)
from tests.project import PROJECT

MACHINES = [ScriptFolder.BALANCER, ScriptFolder.NODE, ScriptFolder.REGISTRY]
NODE_BUNDLE = unpack_scripts(pack_scripts(ScriptFolder.NODE))


@pytest.mark.parametrize("folder", MACHINES)
def test_packed_scripts_name_the_version_of_each_and_hold_their_texts(folder: ScriptFolder) -> None:
    packed = pack_scripts(folder)
    names = re.findall(r"(?m)^=== (\S+) [0-9a-f]{12}$", packed)
    assert {path.name for path in (PROJECT / "templates/scripts" / folder).glob("*.*")} <= {*names}
    assert "prelude.sh" in names
    assert len(packed.splitlines()) == len(names) + 1
    assert unpack_scripts(packed) == "".join(f"=== {name}\n{read_script(folder, name)}" for name in names)


def test_changed_script_changes_its_version_and_the_bundle_alone() -> None:
    old = pack({"a.sh": "echo 1\n", "b.sh": "echo 2\n"}).splitlines()
    new = pack({"a.sh": "echo 1\n", "b.sh": "echo 3\n"}).splitlines()
    assert [before == after for before, after in zip(old, new, strict=True)] == [True, False, False]


@pytest.mark.parametrize("stdin", [NODE_BUNDLE, "=== a\n", "global\n", ""])
def test_other_input_is_not_unpacked(stdin: str) -> None:
    assert unpack_scripts(stdin) == stdin


def test_bundle_takes_less_than_half_of_its_size_in_the_state() -> None:
    assert len(pack_scripts(ScriptFolder.NODE)) < len(NODE_BUNDLE) / 2


def test_same_scripts_are_packed_to_the_same_bytes_on_every_machine() -> None:
    # With other bytes, a colleague's preview would run all scripts again.
    packed = pack({"a.sh": "".join(f"line {number}\n" for number in range(5_000))})
    assert short_digest(packed) == "2262e44dc5e4"
