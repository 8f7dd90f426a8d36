"""What find-drift.sh says of what a script left: the scripts with the tools of Debian 13, at their own paths."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.scripts.test_record_certificate import make_pem
from tests.project import PROJECT

SCRIPTS = PROJECT / "templates/scripts/every-machine"

# As the program's scripts do, of things of this test's own.
INSTALL = """\
source "$(dirname "$0")/prelude.sh"
keep <<END
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
RUN = """
set -euo pipefail
mount -t overlay overlay -o "lowerdir=$LAYERS,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$FOLDER/root"
mount --bind /dev "$FOLDER/root/dev"
cd "$FOLDER/root"
umask 022
echo v1 >etc/plain; echo here >etc/gone; echo hush-1 >etc/secret; cat "$FOLDER/pem-1" >etc/pem
printf 'ours 1\\ntheirs 1\\n' >etc/lines
printf 'db.host=hush-2\\ndb.user=hush-3\\nother=1\\n' >etc/settings; echo db.host=x >etc/deleted
chroot . bash "$SCRIPTS/install-things.sh"
eval "$BY_HAND"
chroot . bash -c "$(cat "$FOLDER/find-drift.sh")" find-drift.sh install-scripts.sh install-things.sh <"$FOLDER/deployed"
"""


# Without context and what is another one each time.
CHANGED = """\
--- /etc/pem as deployed
+++ /etc/pem now
-subject=O=Trust & Co, CN=CA 1
-issuer=O=Trust & Co, CN=CA 1
+subject=O=Trust & Co, CN=CA 2
+issuer=O=Trust & Co, CN=CA 2
-contents as deployed, not shown
+other contents, not shown
/etc/gone is not there.
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
    layers: str
    folder: Path

    def found(self, by_hand: str) -> str:
        run = subprocess.run(
            ["unshare", "--mount", "bash", "-c", RUN],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "LAYERS": self.layers,
                "FOLDER": str(self.folder),
                "SCRIPTS": "/usr/local/lib/ant-media-cluster",
                "BY_HAND": by_hand,
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
    scripts = {name: (SCRIPTS / name).read_text() for name in ("find-drift.sh", "prelude.sh")}
    scripts["install-things.sh"] = INSTALL
    for name, text in scripts.items():
        (installed / name).write_text(text)
        (installed / name).chmod(0o755)
    (tmp_path / "deployed").write_text("".join(f"=== {name}\n{text}" for name, text in scripts.items()))
    (tmp_path / "find-drift.sh").write_text(scripts["find-drift.sh"])
    for number in (1, 2):
        (tmp_path / f"pem-{number}").write_bytes(make_pem("live.example.com", issuer=f"CA {number}")[0])
    return Tree(layers, tmp_path)


def test_what_nobody_touched_is_no_drift_nor_is_what_others_may_change(tree: Tree) -> None:
    assert tree.found("") == ""
    assert (
        tree.found(
            """
            echo theirs 2 >>etc/lines
            echo other=2 >>etc/settings
            rm etc/deleted
            touch etc/plain
            record=var/lib/ant-media-cluster/kept/install-things
            echo 'installed 0.1' >"$record/package coreutils"
            """
        )
        == ""
    )


def test_what_was_changed_by_hand_is_shown_as_diffs_without_what_is_secret(tree: Tree) -> None:
    said = tree.found(
        """
        echo v2 >etc/plain; chmod 600 etc/plain; rm etc/gone; echo hush-4 >etc/secret; cat "$FOLDER/pem-2" >etc/pem
        sed -i s/ours/mine/ etc/lines
        sed -i s/hush-3/hush-5/ etc/settings
        record=var/lib/ant-media-cluster/kept/install-things
        echo 'installed 99' >"$record/package coreutils"; echo 'installed 1.0' >"$record/package no-such-package"
        echo '# mine' >>usr/local/lib/ant-media-cluster/prelude.sh; touch usr/local/lib/ant-media-cluster/mine.sh
        """
    )
    scripts, things = said.split("=== install-things.sh\n")
    assert scripts.startswith("=== install-scripts.sh\n")
    assert "+# mine\n" in scripts
    assert "/usr/local/lib/ant-media-cluster/mine.sh was not deployed.\n" in scripts
    unnamed = re.sub(r"(?m)^ .*\n|^@@.*\n|^([-+])((?:serial|notAfter)=|installed (?!99)).*\n", "", things)
    assert unnamed == CHANGED
    assert "hush" not in said
    assert "PRIVATE KEY" not in said


def test_a_step_that_left_no_record_is_told(tree: Tree) -> None:
    assert tree.found("rm -r var/lib/ant-media-cluster") == (
        "=== install-things.sh\nThere is no record of what it did on this machine.\n"
    )
