"""`make test` runs every end-to-end test."""

import re

from tests.project import PROJECT

END_TO_END = PROJECT / "tests/e2e"


def test_make_runs_every_folder_of_the_end_to_end_tests_at_an_address_of_its_own() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    (folders,) = re.findall(r"(?m)^END_TO_END := (.*)$", makefile)
    assert set(folders.split()) == {path.parent.name for path in END_TO_END.glob("*/test_*.py")}
    addresses = dict(re.findall(r"(?m)^test-e2e-(\w+): export E2E_ADDRESS = (\S+)$", makefile))
    assert addresses.keys() == set(folders.split())
    assert len(set(addresses.values())) == len(addresses)


def test_only_the_last_test_of_every_cluster_is_outside_the_folders() -> None:
    assert [path.name for path in END_TO_END.glob("test_*.py")] == ["test_sandbox_down.py"]
