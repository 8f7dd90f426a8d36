"""What is said before anything is touched, and that it is true."""

import json
import re

import yaml
from cluster import STATE, Cluster

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


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
