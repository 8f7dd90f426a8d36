"""What is said before anything is touched, and that it is true."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.running_cluster import STATE, Cluster
from tests.e2e.stack_secrets import found_in, stack_secrets


@pytest.fixture
def same_settings() -> Iterator[None]:
    """As they were, after the test."""
    settings = STATE / "pulumi/Pulumi.sandbox.yaml"
    before = settings.read_text()
    yield
    settings.write_text(before)


def test_a_second_make_up_changes_nothing(cluster: Cluster) -> None:
    before = cluster.machines()
    again = cluster.bring_up("--expect-no-changes")
    assert again.status == 0, again.output
    assert re.search(r"Resources:\n +\d+ unchanged\n", again.stdout)
    assert cluster.machines() == before


def test_a_stack_that_does_not_exist_yet_previews_the_complete_haproxy_cfg(cluster: Cluster) -> None:
    # The same settings give the same addresses, and so the text that the running cluster has.
    text: str = cluster.outputs()["haproxy_cfg"]
    assert text.count("    server ") > 10
    settings = STATE / "pulumi/Pulumi.unborn.yaml"
    its_own = (STATE / "pulumi/Pulumi.sandbox.yaml").read_text().replace("stack: sandbox", "stack: unborn")
    settings.write_text(its_own)
    try:
        assert cluster.pulumi("stack", "init", "unborn", stack="unborn").status == 0
        preview = cluster.pulumi("preview", "--json", stack="unborn")
        assert preview.status == 0, preview.output
        people_see = cluster.pulumi("preview", "--diff", "--show-full-output", stack="unborn").stdout
    finally:
        cluster.pulumi("stack", "rm", "--yes", "unborn", stack="unborn")
        settings.unlink(missing_ok=True)
    steps = json.loads(preview.stdout)["steps"]
    assert {step["op"] for step in steps} == {"create"}
    texts = [step["newState"]["inputs"]["stdin"] for step in steps if "# Written by" in str(step)]
    assert texts == [text]
    # The text as people see it, in the diff of the resource and in the outputs.
    for line in filter(None, map(str.strip, text.splitlines())):
        assert people_see.count(json.dumps(line)[1:-1]) >= 2, line


def test_wrong_settings_are_refused_all_at_once_before_anything_is_touched(cluster: Cluster) -> None:
    settings = yaml.safe_load((STATE / "pulumi/Pulumi.sandbox.yaml").read_text())
    settings["config"] |= {
        "ant-media-cluster:domain": "not a host name",
        "ant-media-cluster:adminCidrs": ["0.0.0.0/0"],
        "ant-media-cluster:origins": {"count": 0},
        "ant-media-cluster:edges": {"cuont": 3},
        "ant-media-cluster:network": {"cidr": "10.0.0.0/33"},
        "ant-media-cluster:statisticsPassword": "in-plain-text-for-all-to-read",
        "ant-media-cluster:orgins": {"count": 2},
    }
    wrong = STATE / "pulumi/wrong.yaml"
    wrong.write_text(yaml.safe_dump(settings))
    before = cluster.machines()
    done = cluster.pulumi("up", "--yes", "--skip-preview", "--config-file", str(wrong))
    wrong.unlink()
    assert done.status != 0
    assert "Nothing was touched. What stack sandbox needs changed in its configuration:" in done.output
    for key in (
        "domain",
        "adminCidrs[0]",
        "origins.count",
        "edges.cuont",
        "network.cidr",
        "statisticsPassword",
        "orgins",
    ):
        assert f"ant-media-cluster:{key} " in done.output, key
    assert "in-plain-text-for-all-to-read" not in done.output
    assert "Traceback" not in done.output
    assert not re.search(r"\d+ (created|updated|deleted|replaced)", done.output)
    assert cluster.machines() == before


@pytest.mark.usefixtures("same_settings")
def test_no_secret_shows_when_all_of_them_change_or_are_not_those_that_were_reviewed(
    cluster: Cluster, tmp_path: Path
) -> None:
    plan, machines = tmp_path / "plan.json", cluster.machines()
    secrets = [stack_secrets(cluster)]

    def change(**others: str) -> None:
        given = [
            word for key, value in others.items() for word in ("--secret", f"ant-media-cluster:{key}={value}")
        ]
        cluster.must("sandbox/bin/pulumi", "config", "set-all", *given)
        secrets.append(stack_secrets(cluster))

    change(
        sshHostKeySeed="5eed" * 16,
        databasePassword="another-password-of-the-database",
        statisticsPassword="another-password-of-the-statistics",
        panelPassword="another-password-of-the-panel",
    )
    preview = cluster.run("make", "preview", "FORMAT=markdown", f"PLAN={plan}")
    assert preview.status == 0, preview.output
    assert "`userData` `[secret]` is another" in preview.stdout
    change(panelPassword="a-password-that-nobody-reviewed")
    refused = cluster.run("make", "up", f"PLAN={plan}")
    assert refused.status != 0
    assert "Nothing was touched. What would be done is no longer what was reviewed" in refused.stderr
    assert cluster.machines() == machines
    texts = {
        "the comment": preview.stdout,
        "beside the comment": preview.stderr,
        "the plan": plan.read_text(),
        "the refusal": refused.output,
    }
    assert '"ciphertext"' in texts["the plan"]
    for known in secrets:
        assert found_in({place: text.encode() for place, text in texts.items()}, known) == []


def test_what_was_reviewed_is_what_is_done(cluster: Cluster, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    cluster.set("adminCidrs[1]", "203.0.113.21/32")
    preview = cluster.run("make", "preview", "FORMAT=markdown", f"PLAN={plan}")
    assert preview.status == 0, preview.output
    assert "### `sandbox`: 3 to create\n" in preview.stdout
    done = cluster.run("make", "up", f"PLAN={plan}", timeout=120)
    assert done.status == 0, done.output
    assert re.search(
        r"\nUpdating \(sandbox\):\n[\s\S]*\nResources:\n +\+ 3 created\n +\d+ unchanged\n", done.stdout
    )
