"""`python -m operations.new_stack` with the real `pulumi`, in a copy of the project."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cluster.settings.model import GENERATED_SECRETS, NAMESPACE
from cluster.settings.reader import read_settings
from tests.project import PROJECT

PULUMI = shutil.which("pulumi") or PROJECT / ".venv" / "engine" / "pulumi"

# Records its command line, then runs Pulumi.
RECORDER = """\
#!/bin/sh
printf '%s\\n' "$*" >>"$ARGUMENTS"
exec "$PULUMI" "$@"
"""


class Workspace:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.project = path / "project"
        self.arguments = path / "arguments"
        commands = path / "bin"
        if not commands.exists():
            for folder in (commands, path / "state", path / "home"):
                folder.mkdir()
            (commands / "pulumi").write_text(RECORDER)
            (commands / "pulumi").chmod(0o755)
            for folder in ("cluster", "operations"):
                shutil.copytree(PROJECT / folder, self.project / folder)
            for file in ("Pulumi.yaml", "Pulumi.dev.yaml"):
                shutil.copy(PROJECT / file, self.project)
        self.environment = os.environ | {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "PULUMI": str(PULUMI),
            "ARGUMENTS": str(self.arguments),
            "PULUMI_BACKEND_URL": f"file://{path}/state",
            "PULUMI_HOME": str(path / "home"),
            "PULUMI_CONFIG_PASSPHRASE": "passphrase",
            "PULUMI_SKIP_UPDATE_CHECK": "1",
        }

    def run(self, *command: str | Path) -> str:
        return subprocess.run(
            command,
            cwd=self.project,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout

    def new_stack(self, *arguments: str | Path) -> str:
        return self.run(sys.executable, "-m", "operations.new_stack", *arguments)

    def secrets(self, *options: str | Path) -> Mapping[str, str]:
        entries = json.loads(self.run("pulumi", "config", "--json", "--show-secrets", *options))
        return {
            key.removeprefix(f"{NAMESPACE}:"): entry["value"]
            for key, entry in entries.items()
            if entry["secret"]
        }


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture(scope="module")
def created(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str]:
    """A workspace with a new stack, and what its creation printed."""
    workspace = Workspace(tmp_path_factory.mktemp("created"))
    return workspace, workspace.new_stack("dev")


@pytest.fixture
def with_stack(created: tuple[Workspace, str], tmp_path: Path) -> Workspace:
    """A copy of the workspace with a new stack."""
    return Workspace(Path(shutil.copytree(created[0].path, tmp_path / "copy")))


def test_new_stack_has_its_secrets_and_prints_the_missing_settings(created: tuple[Workspace, str]) -> None:
    workspace, printed = created
    assert printed == "\n".join(
        [
            *(f"generated {key}" for key in GENERATED_SECRETS),
            "Stack dev lacks settings that only you know. Run:",
            "  pulumi config set ant-media-cluster:domain live.your-domain.org",
            "  pulumi config set --path 'ant-media-cluster:adminCidrs[0]' "
            '"$(curl -s https://checkip.amazonaws.com)/32"',
            "  pulumi config set --path ant-media-cluster:acme.email you@your-domain.org",
            "  pulumi config set --path aws:defaultTags.tags.owner your-team",
            "",
        ]
    )

    secrets = workspace.secrets("--stack", "dev")
    assert set(secrets) == set(GENERATED_SECRETS)
    read_settings(
        dict(secrets)
        | {
            "domain": "live.ant-media.test",
            "adminCidrs": ["10.0.0.0/8"],
            "acme": {"email": "a@ant-media.test"},
        },
        GENERATED_SECRETS,
        datetime.now(UTC),
    )
    visible = printed + workspace.arguments.read_text() + (workspace.project / "Pulumi.dev.yaml").read_text()
    for value in secrets.values():
        assert all(line not in visible for line in value.splitlines())


def test_second_run_changes_nothing_and_completes_an_interrupted_one(with_stack: Workspace) -> None:
    workspace = with_stack
    file = workspace.project / "Pulumi.dev.yaml"
    first = file.read_text()
    workspace.new_stack("dev")
    assert file.read_text() == first

    before = workspace.secrets("--stack", "dev")
    workspace.run("pulumi", "config", "rm", "--stack", "dev", "panelPassword")
    workspace.run("pulumi", "config", "rm", "--stack", "dev", "--path", "aws:defaultTags.tags.stack")
    given = {
        "aws:defaultTags.tags.project": "of-another-name",
        "aws:defaultTags.tags.owner": "media-team",
        "domain": "live.ant-media.test",
        "adminCidrs[0]": "10.0.0.0/8",
        "acme.email": "a@ant-media.test",
    }
    pairs = [word for key, value in given.items() for word in ("--plaintext", f"{key}={value}")]
    workspace.run("pulumi", "config", "set-all", "--stack", "dev", "--path", *pairs)
    assert workspace.new_stack("dev") == (
        "generated panelPassword\ntagged stack=dev\nStack dev is ready: make up STACK=dev\n"
    )
    after = workspace.secrets("--stack", "dev")
    assert {key for key in before if before[key] != after[key]} == {"panelPassword"}
    assert json.loads(workspace.run("pulumi", "config", "get", "--stack", "dev", "aws:defaultTags")) == {
        "tags": {"project": "of-another-name", "stack": "dev", "owner": "media-team"}
    }


def test_secrets_provider_of_the_settings_encrypts_state_and_secrets(workspace: Workspace) -> None:
    (workspace.project / "Pulumi.dev.yaml").write_text("secretsprovider: akms://alias/pulumi\n")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        workspace.new_stack("dev")
    assert "akms" in failed.value.stderr
    assert json.loads(workspace.run("pulumi", "stack", "ls", "--json")) == []


def test_stack_with_own_certificate_needs_no_acme_account(with_stack: Workspace) -> None:
    workspace = with_stack
    workspace.run("pulumi", "config", "set", "--stack", "dev", "--secret", "--path", "tls.privateKey", "a\nb")
    printed = workspace.new_stack("dev")
    assert "domain" in printed
    assert "acme" not in printed
