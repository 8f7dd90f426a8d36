"""Tests the report of find-drift.sh in a Debian 13 tree: what changed since a script ran."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.scripts.certificate_pem import create_pem
from tests.project import PROJECT

SCRIPTS = PROJECT / "templates/scripts/every-machine"

# Records one item of every kind, as the scripts of the machines do.
INSTALL_SCRIPT = """\
source "$(dirname "$0")/prelude.sh"
save_record <<END
package coreutils
package no-such-package
file /etc/plain
file /etc/gone
secret /etc/secret
certificate /etc/pem
lines /etc/lines ^ours
settings /etc/settings db[.](host|user)
settings /etc/deleted db[.]host
END
"""
RUN_IN_TREE = """
set -euo pipefail
mount -t overlay overlay -o "lowerdir=$LAYERS,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$FOLDER/root"
mount --bind /dev "$FOLDER/root/dev"
cd "$FOLDER/root"
umask 022
echo v1 >etc/plain; echo here >etc/gone; echo hush-1 >etc/secret; cat "$FOLDER/pem-1" >etc/pem
printf 'ours 1\\ntheirs 1\\n' >etc/lines
printf 'db.host=redis://:hush-2@h:1\\ndb.user=hush-3\\nother=1\\n' >etc/settings; echo db.host=x >etc/deleted
mount -t proc proc proc
chroot . bash "$SCRIPTS/configure-system.sh"
chroot . bash "$SCRIPTS/install-items.sh"
eval "$CHANGES"
chroot . bash -c "$(cat "$FOLDER/find-drift.sh")" find-drift.sh install-scripts.sh install-items.sh <"$FOLDER/deployed"
"""


# Without context lines and values that differ in every run.
EXPECTED_DIFFS = """\
--- /etc/pem as deployed
+++ /etc/pem now
-subject=O=Trust & Co, CN=CA 1
-issuer=O=Trust & Co, CN=CA 1
+subject=O=Trust & Co, CN=CA 2
+issuer=O=Trust & Co, CN=CA 2
-contents as deployed, not shown
+other contents, not shown
/etc/gone is missing.
--- /etc/plain as deployed
+++ /etc/plain now
--rw-r--r-- root:root
-v1
+-rw------- root:root
+v2
--- /etc/lines as deployed
+++ /etc/lines now
-ours 1
--- coreutils as deployed
+++ coreutils now
-installed 99
--- no-such-package as deployed
+++ no-such-package now
+not installed
--- /etc/secret as deployed
+++ /etc/secret now
-contents as deployed, not shown
+other contents, not shown
--- /etc/settings as deployed
+++ /etc/settings now
-db.user contents as deployed, not shown
+db.user other contents, not shown
"""


@dataclass
class Tree:
    """A Debian 13 tree on which install-items.sh and then find-drift.sh run."""

    layers: str
    folder: Path

    def find_drift(self, changes: str = "") -> str:
        """Runs both scripts, with the shell commands `changes` in between, and returns the report."""
        run = subprocess.run(
            ["unshare", "--mount", "--net", "bash", "-c", RUN_IN_TREE],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "LAYERS": self.layers,
                "FOLDER": str(self.folder),
                "SCRIPTS": "/usr/local/lib/ant-media-cluster",
                "CHANGES": changes,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout


@pytest.fixture
def tree(layers: str, tmp_path: Path) -> Tree:
    installed = tmp_path / "upper/usr/local/lib/ant-media-cluster"
    for folder in (installed, tmp_path / "work", tmp_path / "root"):
        folder.mkdir(parents=True)
    scripts = {
        name: (SCRIPTS / name).read_text() for name in ("configure-system.sh", "find-drift.sh", "prelude.sh")
    }
    scripts["install-items.sh"] = INSTALL_SCRIPT
    scripts["keep-items.py"] = "# a service\n"
    for name, text in scripts.items():
        (installed / name).write_text(text)
        (installed / name).chmod(0o755)
    (tmp_path / "deployed").write_text("".join(f"=== {name}\n{text}" for name, text in scripts.items()))
    (tmp_path / "find-drift.sh").write_text(scripts["find-drift.sh"])
    for number in (1, 2):
        (tmp_path / f"pem-{number}").write_bytes(create_pem("live.example.com", issuer=f"CA {number}")[0])
    return Tree(layers, tmp_path)


def test_unchanged_items_and_permitted_changes_are_not_drift(tree: Tree) -> None:
    assert tree.find_drift() == ""
    assert (
        tree.find_drift(
            """
            echo theirs 2 >>etc/lines
            echo other=2 >>etc/settings
            sed -i 's/:/\\\\:/g' etc/settings  # as Java writes it
            rm etc/deleted
            touch etc/plain
            record=var/lib/ant-media-cluster/kept/install-items
            echo 'installed 0.1' >"$record/package coreutils"
            """
        )
        == ""
    )


def test_manual_changes_are_reported_as_diffs_without_secrets(tree: Tree) -> None:
    report = tree.find_drift(
        """
        echo v2 >etc/plain; chmod 600 etc/plain; rm etc/gone; echo hush-4 >etc/secret; cat "$FOLDER/pem-2" >etc/pem
        sed -i s/ours/mine/ etc/lines
        sed -i s/hush-3/hush-5/ etc/settings
        sed -i s/60/7200/ etc/sysctl.d/90-ant-media-cluster.conf; rm etc/apt/apt.conf.d/90ant-media-cluster
        record=var/lib/ant-media-cluster/kept/install-items
        echo 'installed 99' >"$record/package coreutils"; echo 'installed 1.0' >"$record/package no-such-package"
        scripts=usr/local/lib/ant-media-cluster
        echo '# mine' >>$scripts/prelude.sh; echo '# mine too' >>$scripts/keep-items.py; touch $scripts/mine.sh
        """
    )
    script_report, item_report = report.split("=== install-items.sh\n")
    assert script_report.startswith("=== install-scripts.sh\n")
    assert "+# mine\n" in script_report
    assert "+# mine too\n" in script_report
    assert "/usr/local/lib/ant-media-cluster/mine.sh was not deployed.\n" in script_report
    assert "/etc/apt/apt.conf.d/90ant-media-cluster is missing.\n" in script_report
    assert "+net.ipv4.tcp_keepalive_time = 7200\n" in script_report
    stable = re.sub(r"(?m)^ .*\n|^@@.*\n|^([-+])((?:serial|notAfter)=|installed (?!99)).*\n", "", item_report)
    assert stable == EXPECTED_DIFFS
    assert "hush" not in report
    assert "PRIVATE KEY" not in report


def test_missing_record_is_reported(tree: Tree) -> None:
    missing = "This machine has no record of the script's last run.\n"
    assert tree.find_drift("rm -r var/lib/ant-media-cluster") == (
        f"=== install-scripts.sh\n{missing}=== install-items.sh\n{missing}"
    )
