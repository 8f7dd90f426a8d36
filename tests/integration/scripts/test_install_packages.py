"""Installation of packages by the scripts of machines, with apt-get and dpkg-query replaced."""

import subprocess
from pathlib import Path

import pytest

from tests.project import PROJECT

PRELUDE = PROJECT / "templates/scripts/every-machine/prelude.sh"
APT_GET = 'echo "$*" >>"$CALLS"\n'
DPKG_QUERY = """\
case "${@: -1}" in
  haproxy | certbot) echo "installed 1.0" ;;
  half) echo "half-configured 1.0" ;;
  *) exit 1 ;;
esac
"""


@pytest.mark.parametrize(
    ("packages", "installed"),
    [(["haproxy", "certbot"], []), (["haproxy", "jq"], ["jq"]), (["haproxy", "half"], ["half"])],
)
def test_only_packages_that_are_not_installed_are_installed(
    packages: list[str], installed: list[str], tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    for name, script in (("apt-get", APT_GET), ("dpkg-query", DPKG_QUERY)):
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{script}")
        (tmp_path / name).chmod(0o755)
    # The log is in a folder that only machines need to have.
    prelude = tmp_path / "prelude.sh"
    prelude.write_text(PRELUDE.read_text().replace("/var/log/", f"{tmp_path}/"))
    subprocess.run(
        ["bash", "-c", 'source "$0"; install_packages "$@"', prelude, *packages],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "CALLS": str(calls)},
        check=True,
    )
    made = calls.read_text().splitlines() if calls.exists() else []
    assert made[:1] == (["update"] if installed else [])
    assert [call.rpartition("--no-install-recommends ")[2].split() for call in made[1:]] == (
        [installed] if installed else []
    )
