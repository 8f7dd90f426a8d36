"""The names, settings and expiry of test clusters, and the commands that refuse or delete them."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.address_plan import plan_addresses
from cluster.settings.network import OwnNetwork
from cluster.settings.stack_checks import find_stack_problems
from operations import stack_file
from operations.test_clusters.expiry import Cluster, format_clusters, read_cluster
from operations.test_clusters.settings import (
    NETWORKS,
    CommandError,
    check_name,
    choose_network,
    create_settings,
    is_test_cluster,
    read_ttl,
)
from tests.project import PROJECT

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,9}){0,2}", fullmatch=True)
EXPIRY = "2026-11-22T04:00:00Z"
NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
DEV: dict[str, Any] = {
    "secretsprovider": "awskms://alias/pulumi",
    "encryptedkey": "a-key-of-dev",
    "encryptionsalt": "v1:salt-of-dev",
    "config": {
        "aws:region": "eu-west-1",
        "aws:defaultTags": {
            "tags": {"project": "ant-media-cluster", "stack": "dev", "owner": "media-team", "team": "7"}
        },
        "ant-media-cluster:protect": True,
        "ant-media-cluster:domain": "live.media.test",
        "ant-media-cluster:route53Zone": "media.test",
        "ant-media-cluster:adminCidrs": ["203.0.113.20/32"],
        "ant-media-cluster:network": {"cidr": "10.1.0.0/16", "zones": 3},
        "ant-media-cluster:origins": {"count": 1},
        "ant-media-cluster:acme": {
            "email": "a@media.test",
            "directory": "staging",
            "names": ["b.media.test"],
        },
        "ant-media-cluster:panelPassword": {"secure": "v1:of-dev"},
        "ant-media-cluster:databaseUrl": {"secure": "v1:of-dev"},
    },
}


def dev_with(key: str, value: Any) -> dict[str, Any]:
    return {**DEV, "config": {**DEV["config"], f"ant-media-cluster:{key}": value}}


@pytest.mark.parametrize(
    ("text", "ttl"),
    [("15m", timedelta(minutes=15)), ("4h", timedelta(hours=4)), ("7d", timedelta(days=7))],
)
def test_ttl_is_given_in_minutes_hours_or_days(text: str, ttl: timedelta) -> None:
    assert read_ttl(text) == ttl


@pytest.mark.parametrize(
    "text", ["", "4", "h", "-4h", "04h", "4 h", "4h30m", "1w", "14m", "8d", "99999d", "٤h"]
)
def test_invalid_ttl_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match=r"^TTL is .*: give a time from 15m to 7d"):
        read_ttl(text)


@pytest.mark.parametrize(
    "name", ["", "PR-1", "pr_1", "-pr", "pr-", "pr--1", "1pr", "pr.1", "../dev", "pr 1", "p" * 32]
)
def test_name_that_is_no_host_name_label_is_refused(name: str) -> None:
    with pytest.raises(CommandError, match=r"^NAME is .*: give lower-case letters"):
        check_name(name)


def test_name_of_another_stack_is_refused() -> None:
    with pytest.raises(CommandError, match=r"^NAME is prod, which is not a test cluster"):
        check_name("prod", ("dev", "prod"))


def test_longest_name_fits_the_names_at_aws() -> None:
    longest = "p" * 31
    check_name(longest)
    tags = create_settings(DEV, "dev", longest, EXPIRY)["config"]["aws:defaultTags"]
    assert find_stack_problems("ant-media-cluster", longest, tags) == []


@given(NAMES)
def test_network_of_each_name_holds_a_large_cluster(name: str) -> None:
    network = IPv4Network(choose_network(name))
    assert network.subnet_of(NETWORKS)
    plan_addresses(OwnNetwork(cidr=str(network), zones=6), 100, 300)


def test_no_committed_stack_uses_the_networks_of_test_clusters() -> None:
    for path in PROJECT.glob("Pulumi.*.yaml"):
        network = stack_file.read(path)["config"].get("ant-media-cluster:network", {})
        assert not IPv4Network(network.get("cidr", OwnNetwork().cidr)).overlaps(NETWORKS), path.name


def test_networks_rarely_collide() -> None:
    assert len({choose_network(f"pr-{number}") for number in range(1, 101)}) > 90


def test_test_cluster_keeps_no_recordings_and_does_not_share_a_bucket() -> None:
    def recordings(given: dict[str, Any]) -> Any:
        settings = create_settings(dev_with("recordings", given), "dev", "pr-123", EXPIRY)
        return settings["config"]["ant-media-cluster:recordings"]

    assert recordings({"bucket": "our-recordings"}) == {"bucket": "create", "deleteWithStack": True}
    assert recordings({"bucket": "create"}) == {"bucket": "create", "deleteWithStack": True}


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("loadBalancer", {"volumeSize": 20, "elasticIp": "eipalloc-12345678"}, {"volumeSize": 20}),
        ("serverSettings", {"server": {"name": "live.media.test", "cpu_limit": 80}}, {"server": {"cpu_limit": 80}}),
        ("serverSettings", '{"server.name": "live.media.test", "logLevel": "WARN"}', {"logLevel": "WARN"}),
    ],
)  # fmt: skip
def test_test_cluster_takes_no_address_and_no_name_of_the_stack(key: str, given: Any, expected: Any) -> None:
    settings = create_settings(dev_with(key, given), "dev", "pr-123", EXPIRY)
    assert settings["config"][f"ant-media-cluster:{key}"] == expected


def test_settings_are_those_of_the_stack_with_own_name_network_and_expiry() -> None:
    assert create_settings(DEV, "dev", "pr-123", EXPIRY) == {
        "secretsprovider": "awskms://alias/pulumi",
        "config": {
            "aws:region": "eu-west-1",
            "aws:defaultTags": {
                "tags": {
                    "project": "ant-media-cluster",
                    "stack": "pr-123",
                    "owner": "media-team",
                    "team": "7",
                    "expiry": EXPIRY,
                }
            },
            "ant-media-cluster:domain": "pr-123.live.media.test",
            "ant-media-cluster:route53Zone": "media.test",
            "ant-media-cluster:adminCidrs": ["203.0.113.20/32"],
            "ant-media-cluster:network": {"cidr": choose_network("pr-123"), "zones": 3},
            "ant-media-cluster:origins": {"count": 1},
            "ant-media-cluster:acme": {"email": "a@media.test", "directory": "staging"},
        },
    }


def test_update_keeps_the_secrets_of_a_test_cluster() -> None:
    own = {"encryptionsalt": "v1:own", "config": {"ant-media-cluster:panelPassword": {"secure": "v1:own"}}}
    again = stack_file.add_secrets(create_settings(DEV, "dev", "pr-123", EXPIRY), own)
    assert again["encryptionsalt"] == "v1:own"
    assert again["config"]["ant-media-cluster:panelPassword"] == {"secure": "v1:own"}
    assert is_test_cluster(again)
    assert not is_test_cluster(DEV)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (dev_with("route53Zone", ""), "route53Zone is not set: pulumi config set --stack dev ant-media-cluster:route"),
        (dev_with("domain", ""), "domain is not set: pulumi config set --stack dev ant-media-cluster:domain"),
        (dev_with("acme", {}), "acme.email is not set: "),
        (dev_with("domain", f"{'a.' * 125}test"), "domain would be pr-123.a.a."),
        (dev_with("network", {"subnets": [{"id": "subnet-0a", "cidr": "10.0.0.0/24"}]}), "network.subnets would be"),
        (dev_with("network", '{"subnets": [{}]}'), "network.subnets would be shared"),
        (dev_with("tls", {"certificate": "-", "privateKey": {"secure": "-"}}), "tls is a certificate"),
        (dev_with("tls", {"secure": "-"}), "tls is a certificate"),
        ({"config": {**DEV["config"], "aws:defaultTags": {}}}, "aws:defaultTags.tags.owner is not set: "),
    ],
)  # fmt: skip
def test_unsuitable_stack_is_refused(source: dict[str, Any], problem: str) -> None:
    with pytest.raises(CommandError) as refused:
        create_settings(source, "dev", "pr-123", EXPIRY)
    heading, line = str(refused.value).splitlines()
    assert heading == "A test cluster cannot use the settings of dev:"
    assert problem in line


def provider(tags: str) -> dict[str, Any]:
    return {
        "type": "pulumi:providers:aws",
        "custom": True,
        "inputs": {"defaultTags": f'{{"tags":{{{tags}}}}}', "region": "eu-west-1"},
    }


INSTANCE = {"type": "aws:ec2/instance:Instance", "custom": True, "inputs": {}}
PR_123 = Cluster("pr-123", "media-team", datetime(2026, 11, 22, 4, tzinfo=UTC), 1)


def test_expiry_is_read_from_the_state() -> None:
    tags = f'"expiry":"{EXPIRY}","owner":"media-team"'
    component = {"type": "ant-media:network:Network", "custom": False}
    assert read_cluster("pr-123", {"resources": [component, provider(tags), INSTANCE]}) == PR_123


def test_later_expiry_counts_while_the_state_has_two_providers() -> None:
    earlier = provider('"expiry":"2026-11-21T04:00:00Z","owner":"media-team"')
    later = provider(f'"expiry":"{EXPIRY}","owner":"media-team"')
    for resources in ([earlier, later, INSTANCE], [later, earlier, INSTANCE]):
        assert read_cluster("pr-123", {"resources": resources}) == PR_123


@pytest.mark.parametrize("tags", ["", '"owner":"media-team"', '"expiry":"soon"', '"expiry":"2026-11-22"'])
def test_stack_without_expiry_is_no_test_cluster(tags: str) -> None:
    assert read_cluster("prod", {"resources": [provider(tags), INSTANCE]}) is None
    assert read_cluster("prod", {}) is None


def test_table_is_ordered_by_expiry() -> None:
    clusters = [
        Cluster("pr-7", "media-team", NOW + timedelta(hours=3, minutes=20, seconds=59), 62),
        Cluster("pr-123", "you", NOW - timedelta(days=2, hours=1), 4),
        Cluster("load", "you", NOW + timedelta(minutes=12), 120),
    ]
    assert format_clusters(clusters, NOW).splitlines() == [
        "NAME    OWNER       EXPIRES        RESOURCES",
        "pr-123  you         2 d 1 h ago    4",
        "load    you         in 12 min      120",
        "pr-7    media-team  in 3 h 20 min  62",
    ]


PULUMI = """\
#!/bin/sh
case "$*" in
"stack ls --json")
  # Fails once, as while another run writes a state file.
  [ -e read ] || { touch read; echo "error: EOF" >&2; exit 255; }
  cat stacks.json ;;
"stack export"*) cat "$(dirname "$0")/$PULUMI_STACK.json" ;;
destroy*) exit 7 ;;
esac
"""


def run_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "operations.test_clusters", *arguments],
        cwd=folder,
        env=os.environ
        | {
            "PYTHONPATH": str(PROJECT),
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PULUMI_BACKEND_URL": f"file://{folder}",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_failed_deletion_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "pulumi").write_text(PULUMI)
    (tmp_path / "pulumi").chmod(0o755)
    (tmp_path / "stacks.json").write_text('[{"name": "dev"}]')
    (tmp_path / "dev.json").write_text('{"deployment": {}}')
    none_expired = run_command(tmp_path, "down-expired")
    assert (none_expired.returncode, none_expired.stdout) == (0, "No test cluster has expired.\n")

    (tmp_path / "stacks.json").write_text('[{"name": "broken"}, {"name": "new"}]')
    for name, expiry in (("broken", "2026-01-01T00:00:00Z"), ("new", "2099-01-01T00:00:00Z")):
        deployment = {"resources": [provider(f'"expiry":"{expiry}"')]}
        (tmp_path / f"{name}.json").write_text(json.dumps({"deployment": deployment}))
    locks = tmp_path / ".pulumi/locks/organization/ant-media-cluster/broken"
    locks.mkdir(parents=True)
    (locks / "half-written.json").write_text('{"pid":')
    done = run_command(tmp_path, "down-expired")
    assert "new expires in " in done.stdout
    assert not [*locks.iterdir()]
    assert "Traceback" not in done.stderr
    assert "broken: pulumi destroy --yes --skip-preview failed with exit code 7\n" in done.stderr
    assert done.stderr.endswith("could not be deleted: broken.\n")
    assert done.returncode == 1


@pytest.mark.parametrize(("name", "shown"), [("", "not given"), ("../x", "../x"), ("-x", "-x")])
def test_invalid_name_is_refused_by_every_command(tmp_path: Path, name: str, shown: str) -> None:
    for arguments in (("down", "--", name), ("settings", "--", name, "1h", "dev")):
        refused = run_command(tmp_path, *arguments)
        assert refused.stderr.startswith(f"NAME is {shown}: give ")
        assert refused.stderr.endswith("such as pr-123\n")
        assert refused.returncode == 1
