"""Previews and validation: Pulumi reports changes and errors before it changes anything."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.preview_output import list_operations, reports_changes
from tests.e2e.running_cluster import SETTINGS_FILE, SETTINGS_FOLDER, Cluster, restored_settings
from tests.e2e.stack_secrets import find_leaks, list_secret_texts


@pytest.fixture
def settings_restored() -> Iterator[None]:
    with restored_settings():
        yield


def test_second_make_up_changes_nothing_and_shows_no_secret(cluster: Cluster) -> None:
    before = cluster.list_machines()
    output = cluster.bring_up("--expect-no-changes", "--diff", "--show-sames").check()
    assert re.search(r"Resources:\n +\d+ unchanged\n", output)
    assert cluster.list_machines() == before
    assert "command:remote:Command: (same)" in output
    assert not find_leaks({"output": output.encode()}, list_secret_texts(cluster))


def test_preview_of_a_new_stack_shows_the_complete_haproxy_cfg_and_no_secret(cluster: Cluster) -> None:
    # The same settings give the same addresses and so the same text as the running cluster.
    text: str = cluster.get_outputs()["haproxy_cfg"]
    assert text.count("    server ") > 10
    settings = SETTINGS_FOLDER / "Pulumi.new-stack.yaml"
    settings.write_text(SETTINGS_FILE.read_text().replace("stack: sandbox", "stack: new-stack"))
    try:
        cluster.pulumi("stack", "init", "new-stack", stack="new-stack").check()
        preview = cluster.pulumi("preview", "--diff", "--show-full-output", stack="new-stack").check()
    finally:
        cluster.pulumi("stack", "rm", "--yes", "new-stack", stack="new-stack")
        settings.unlink(missing_ok=True)
    created = list_operations(preview, "+")
    assert "service-configuration" in created
    assert re.search(rf"\nResources:\n +\+ {len(created)} to create\n$", preview)
    # The diff shows the text twice: as an input of the resource and as an output.
    assert preview.count(json.dumps(text, ensure_ascii=False)) == 2
    assert not find_leaks({"preview": preview.encode()}, list_secret_texts(cluster))


def test_all_invalid_settings_are_reported_at_once_and_nothing_changes(cluster: Cluster) -> None:
    settings = yaml.safe_load(SETTINGS_FILE.read_text())
    settings["config"] |= {
        "ant-media-cluster:domain": "not a host name",
        "ant-media-cluster:adminCidrs": ["0.0.0.0/0"],
        "ant-media-cluster:origins": {"count": 0},
        "ant-media-cluster:edges": {"cuont": 3},
        "ant-media-cluster:network": {"cidr": "10.0.0.0/33"},
        "ant-media-cluster:statisticsPassword": "in-plain-text-for-all-to-read",
        "ant-media-cluster:orgins": {"count": 2},
    }
    invalid = SETTINGS_FOLDER / "invalid.yaml"
    invalid.write_text(yaml.safe_dump(settings))
    before = cluster.list_machines()
    refused = cluster.pulumi("up", "--yes", "--skip-preview", "--config-file", str(invalid))
    invalid.unlink()
    assert refused.exit_code != 0
    assert "Nothing was changed. Correct the configuration of stack sandbox:" in refused.output
    for key in (
        "domain",
        "adminCidrs[0]",
        "origins.count",
        "edges.cuont",
        "network.cidr",
        "statisticsPassword",
        "orgins",
    ):
        assert f"ant-media-cluster:{key} " in refused.output, key
    assert "in-plain-text-for-all-to-read" not in refused.output
    assert "Traceback" not in refused.output
    assert not reports_changes(refused.output)
    assert cluster.list_machines() == before


@pytest.mark.usefixtures("settings_restored")
def test_no_secret_appears_when_all_secrets_change_or_the_plan_is_stale(
    cluster: Cluster, tmp_path: Path
) -> None:
    plan, machines = tmp_path / "plan.json", cluster.list_machines()
    secrets = [list_secret_texts(cluster)]

    def change_secrets(**values: str) -> None:
        arguments = [
            word for key, value in values.items() for word in ("--secret", f"ant-media-cluster:{key}={value}")
        ]
        cluster.pulumi("config", "set-all", *arguments).check()
        secrets.append(list_secret_texts(cluster))

    change_secrets(
        sshHostKeySeed="5eed" * 16,
        databasePassword="another-password-of-the-database",
        statisticsPassword="another-password-of-the-statistics",
        panelPassword="another-password-of-the-panel",
    )
    preview = cluster.run("make", "preview", "FORMAT=markdown", f"PLAN={plan}")
    preview.check()
    assert "`userData` `[secret]` changes" in preview.stdout
    change_secrets(panelPassword="a-password-that-was-not-reviewed")
    refused = cluster.run("make", "up", f"PLAN={plan}")
    assert refused.exit_code != 0
    assert "Nothing was changed. The plan is stale" in refused.stderr
    assert cluster.list_machines() == machines
    texts = {
        "comment": preview.stdout,
        "standard error of the preview": preview.stderr,
        "plan": plan.read_text(),
        "refusal": refused.output,
    }
    assert '"ciphertext"' in texts["plan"]
    for values in secrets:
        assert find_leaks({place: text.encode() for place, text in texts.items()}, values) == []
