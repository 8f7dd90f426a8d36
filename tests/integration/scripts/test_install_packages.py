"""Installation of packages by the scripts of machines, with apt-get and dpkg-query replaced."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.project import PROJECT

PRELUDE = PROJECT / "templates/scripts/every-machine/prelude.sh"
# $FAILS is the number of the installation that fails.
APT_GET = """\
echo "$*" >>"$CALLS"
[[ $* != *install* || $(grep -c install "$CALLS") != "${FAILS:-}" ]]
"""
DPKG_QUERY = """\
case "${@: -1}" in
  haproxy | certbot) echo "installed 1.0" ;;
  half) echo "half-configured 1.0" ;;
  *) exit 1 ;;
esac
"""


class Target:
    """A machine with three packages: haproxy and certbot are installed, `half` is unpacked only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, script in (("apt-get", APT_GET), ("dpkg-query", DPKG_QUERY)):
            (folder / name).write_text(f"#!/usr/bin/env bash\n{script}")
            (folder / name).chmod(0o755)
        # The machine's folders for the log and for the time of the last update become this one.
        text = PRELUDE.read_text().replace("/var/log/", f"{folder}/").replace("=/run/", f"={folder}/")
        (folder / "prelude.sh").write_text(text)

    def install(self, *packages: str, fails: str = "") -> list[str]:
        """Runs install_packages in a script of its own; returns apt-get's calls: `update`, or the packages to install."""
        calls = self.folder / "calls"
        calls.write_text("")
        subprocess.run(
            ["bash", "-c", 'source "$0"; install_packages "$@"', self.folder / "prelude.sh", *packages],
            env={"PATH": f"{self.folder}:/usr/bin:/bin", "CALLS": str(calls), "FAILS": fails},
            check=True,
        )
        return [call.rpartition("--no-install-recommends ")[2] for call in calls.read_text().splitlines()]


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(tmp_path)


@pytest.mark.parametrize(
    ("packages", "installed"),
    [(["haproxy", "certbot"], []), (["haproxy", "jq"], ["jq"]), (["haproxy", "half"], ["half"])],
)
def test_only_packages_that_are_not_installed_are_installed(
    packages: list[str], installed: list[str], target: Target
) -> None:
    assert target.install(*packages) == (["update", *installed] if installed else [])


def test_the_second_script_uses_the_package_lists_of_the_first(target: Target) -> None:
    assert target.install("jq") == ["update", "jq"]
    assert target.install("socat") == ["socat"]


def test_an_installation_with_old_package_lists_that_fails_is_repeated_with_new_ones(target: Target) -> None:
    target.install("jq")
    assert target.install("socat", fails="1") == ["socat", "update", "socat"]


def test_package_lists_are_used_for_an_hour_only(target: Target) -> None:
    target.install("jq")
    for mark in target.folder.glob("*updated*"):
        os.utime(mark, (0, 0))
    assert target.install("socat") == ["update", "socat"]
