"""Settings files of stacks, and the secrets in them."""

import subprocess
import sys
from pathlib import Path

import yaml

from operations import stack_file
from tests.project import PROJECT

ACME, PASSWORD = "ant-media-cluster:acme", {"secure": "v1:…"}


def test_merge_keeps_the_secrets_of_the_target_and_sets_the_acme_root() -> None:
    target = {
        "encryptionsalt": "v1:salt",
        "config": {"password": PASSWORD, ACME: {"root": "yesterday's"}, "dropped": 1},
    }

    def merge(**config: object) -> object:
        settings = stack_file.add_secrets({"config": config}, target)
        assert settings["encryptionsalt"] == "v1:salt"
        return stack_file.add_acme_root(settings, "today's")["config"]

    assert merge(**{ACME: {"email": "a@b.test"}}) == {
        "password": PASSWORD,
        ACME: {"root": "today's", "email": "a@b.test"},
    }
    assert merge(**{ACME: {"root": "my own"}}) == {"password": PASSWORD, ACME: {"root": "my own"}}
    assert merge() == {"password": PASSWORD}


def test_merge_keeps_the_secrets_inside_objects_that_the_settings_have() -> None:
    target = {
        "server": {"jwt": {"key": PASSWORD, "old": 1}, "limit": 1},
        "zip": {"url": PASSWORD, "sha256": "1"},
    }

    def merge(**config: object) -> object:
        return stack_file.add_secrets({"config": config}, {"config": target})["config"]

    assert merge(server={"jwt": {"on": True}}) == {"server": {"jwt": {"on": True, "key": PASSWORD}}}
    assert merge(zip={"url": "mine"}) == {"zip": {"url": "mine"}}
    assert merge(server={"jwt": PASSWORD}) == {"server": {"jwt": PASSWORD}}


def test_merge_command_creates_the_target(tmp_path: Path) -> None:
    source, target, root = tmp_path / "source.yaml", tmp_path / "new/Pulumi.dev.yaml", tmp_path / "root.pem"
    source.write_text(yaml.safe_dump({"config": {ACME: {"email": "a@b.test"}}}))
    root.write_text("PEM")
    command = [sys.executable, "-m", "operations.stack_file", "merge", source, target, "--acme-root", root]
    subprocess.run(command, cwd=PROJECT, check=True, timeout=60)
    assert stack_file.read(target) == {"config": {ACME: {"root": "PEM", "email": "a@b.test"}}}
