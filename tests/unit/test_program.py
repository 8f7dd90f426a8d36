"""Resources that the program creates, and settings that it refuses, with Pulumi's mocks."""

import json
import re
import shlex
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import pulumi
import pytest

from cluster.derived_keys import extract_public_key
from cluster.plan import plan_cluster
from cluster.settings.reader import read_settings
from operations.new_stack.creation import generate_ssh_private_key
from tests.project import PROJECT
from tests.unit.program import SECRETS, SETTINGS, Run, revealed, run, without_secrets

INSTANCE = "aws:ec2/instance:Instance"
REMOTE = "command:remote:Command"
ZIP = {"url": "https://a.org/a.zip?key=1", "sha256": "a" * 64}
INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"

WITH_PRIVATE = {
    "subnet-0aaaaaaaaaaaaaaaa": ("10.1.0.0/24", "vpc-1"),
    "subnet-0bbbbbbbbbbbbbbbb": ("10.1.9.0/24", "vpc-1"),
}
PRIVATE: dict[str, Any] = {
    "network": {"subnets": [{"id": "subnet-0aaaaaaaaaaaaaaaa", "cidr": "10.1.0.0/24"}]},
    "database": {"subnet": {"id": "subnet-0bbbbbbbbbbbbbbbb", "cidr": "10.1.9.0/24"}},
}
BEHIND_NAT: dict[str, Any] = {
    "subnets": WITH_PRIVATE,
    "subnet_routes": {"subnet-0bbbbbbbbbbbbbbbb": {"natGatewayId": "nat-1"}},
}


@pytest.fixture(scope="module")
def two_and_two() -> Run:
    return run(route53Zone="ant-media.test")


def test_two_origins_and_two_edges_need_six_machines(two_and_two: Run) -> None:
    assert sorted(two_and_two.of_type(INSTANCE)) == [
        "database", "edge1", "edge2", "load-balancer", "origin1", "origin2",
    ]  # fmt: skip


def test_plan_lists_every_machine_for_the_account_checks(two_and_two: Run) -> None:
    plan = plan_cluster(
        "ant-media-cluster-unit", read_settings(SECRETS | SETTINGS, SECRETS, datetime.now(UTC))
    )
    planned = [machine.place.name for machines in plan.machines.values() for machine in machines]
    assert sorted(planned) == sorted(two_and_two.of_type(INSTANCE))


def test_machines_have_encrypted_volumes_and_require_imdsv2(two_and_two: Run) -> None:
    for name, inputs in two_and_two.of_type(INSTANCE).items():
        assert inputs["rootBlockDevice"] == {
            "encrypted": True, "volumeType": "gp3", "volumeSize": 16, "deleteOnTermination": True,
            "tags": {"Name": f"ant-media-cluster-unit-{name}"},
        }  # fmt: skip
        assert inputs["metadataOptions"] == {"httpEndpoint": "enabled", "httpTokens": "required"}


def test_machines_have_their_planned_addresses_in_alternating_zones(two_and_two: Run) -> None:
    subnets = {
        name: subnet["availabilityZone"]
        for name, subnet in two_and_two.of_type("aws:ec2/subnet:Subnet").items()
    }
    placed = {
        name: (inputs["privateIp"], subnets[inputs["subnetId"].removesuffix("-id")])
        for name, inputs in two_and_two.of_type(INSTANCE).items()
    }
    assert placed == {
        "load-balancer": ("10.0.0.4", "eu-west-1a"),
        "database": ("10.0.0.5", "eu-west-1a"),
        "origin1": ("10.0.0.8", "eu-west-1a"),
        "origin2": ("10.0.32.9", "eu-west-1b"),
        "edge1": ("10.0.31.254", "eu-west-1a"),
        "edge2": ("10.0.63.253", "eu-west-1b"),
    }


def test_security_groups_open_exactly_the_port_table(two_and_two: Run) -> None:
    opened = {
        (
            rule["securityGroupId"].removeprefix("firewall-").removesuffix("-id"),
            rule["ipProtocol"],
            (rule["fromPort"], rule["toPort"]),
            rule.get("cidrIpv4")
            or rule["referencedSecurityGroupId"].removeprefix("firewall-").removesuffix("-id"),
        )
        for rule in two_and_two.of_type(INGRESS).values()
    }
    world, admin = "0.0.0.0/0", "203.0.113.20/32"
    assert opened == {
        *(("load-balancer", "tcp", (port, port), world) for port in (80, 443, 4444, 5080, 5443)),
        *(("rtmp", "tcp", (port, port), world) for port in (1935, 1936)),
        *(("load-balancer", "tcp", (port, port), admin) for port in (22, 4444, 6080)),
        ("nodes", "tcp", (22, 22), "load-balancer"),
        ("nodes", "tcp", (5080, 5080), "load-balancer"),
        ("nodes", "tcp", (5080, 5080), "nodes"),
        ("nodes", "tcp", (5000, 5000), "nodes"),
        ("nodes", "udp", (50000, 60000), world),
        ("origins", "tcp", (1935, 1935), "load-balancer"),
        ("database", "tcp", (22, 22), "load-balancer"),
        ("database", "tcp", (6379, 6379), "nodes"),
        ("database", "tcp", (6379, 6379), "load-balancer"),
        ("load-balancer", "tcp", (6379, 6379), "nodes"),
        ("load-balancer", "tcp", (6379, 6379), "database"),
    }  # fmt: skip
    assert all(rule["description"] for rule in two_and_two.of_type(INGRESS).values())


def test_ports_that_haproxy_guards_or_moves_open_when_its_configuration_is_applied(two_and_two: Run) -> None:
    """If haproxy.cfg is refused, the security group has the port that HAProxy still serves."""
    late = {
        name
        for name in two_and_two.of_type(INGRESS)
        if "service-configuration" in two_and_two.dependencies[f"{INGRESS} {name}"]
    }
    assert late == {
        "firewall-load-balancer-panel-links-from-0.0.0.0/0",
        "firewall-rtmp-rtmps-from-0.0.0.0/0",
    }
    stdin = two_and_two.of_type(REMOTE)["service-configuration"]["stdin"]
    assert "http-request deny deny_status 403 unless { src 203.0.113.20/32 }" in stdin


def test_machines_are_in_the_security_groups_of_their_role(two_and_two: Run) -> None:
    groups = {
        name: [group.removeprefix("firewall-").removesuffix("-id") for group in inputs["vpcSecurityGroupIds"]]
        for name, inputs in two_and_two.of_type(INSTANCE).items()
    }
    assert groups == {
        "load-balancer": ["load-balancer", "rtmp"],
        "database": ["database"],
        "origin1": ["nodes", "origins"],
        "origin2": ["nodes", "origins"],
        "edge1": ["nodes"],
        "edge2": ["nodes"],
    }


def test_rtmps_port_opens_to_publishers_and_0_closes_it() -> None:
    def opened(port: int) -> list[tuple[str, int]]:
        result = run(rtmpsPort=port, publisherCidrs=["203.0.113.0/24"])
        rules = result.of_type(INGRESS).values()
        return [(r["cidrIpv4"], r["fromPort"]) for r in rules if r["securityGroupId"] == "firewall-rtmp-id"]

    assert opened(2936) == [("203.0.113.0/24", 1935), ("203.0.113.0/24", 2936)]
    assert opened(0) == [("203.0.113.0/24", 1935)]


def test_monitoring_networks_reach_the_metrics_and_nothing_else() -> None:
    result = run(monitoringCidrs=["203.0.113.30/32", "203.0.113.20/32"])
    rules = result.of_type(INGRESS).values()
    assert [
        (rule["securityGroupId"], rule["fromPort"])
        for rule in rules
        if rule.get("cidrIpv4") == "203.0.113.30/32"
    ] == [("firewall-load-balancer-id", 6080)]
    on_6080 = [rule["cidrIpv4"] for rule in rules if rule["fromPort"] == 6080]
    assert on_6080 == ["203.0.113.20/32", "203.0.113.30/32"]


def test_network_that_moves_between_administrators_and_monitoring_keeps_its_rule() -> None:
    # An update creates rules before it deletes others, and AWS refuses a second one for the same port and network.
    def opened(administrators: list[str], monitoring: list[str]) -> dict[str, object]:
        rules = run(adminCidrs=administrators, monitoringCidrs=monitoring).of_type(INGRESS)
        return {name: rule for name, rule in rules.items() if rule["fromPort"] == 6080}

    one, other = "203.0.113.20/32", "203.0.113.30/32"
    assert opened([one, other], []) == opened([one], [other])


def test_monitoring_installs_node_exporter_on_each_machine_after_its_set_up(two_and_two: Run) -> None:
    monitored = run(monitoringCidrs=["203.0.113.30/32"])
    added = {
        name: inputs["create"].split("  # ")[0].split("/")[-1]
        for name, inputs in monitored.of_type(REMOTE).items()
        if name not in two_and_two.of_type(REMOTE)
    }
    nodes = ("origin1", "origin2", "edge1", "edge2")
    assert added == {
        **{f"{node}-node-exporter": "install-node-exporter.sh antmedia.service" for node in nodes},
        "database-node-exporter": "install-node-exporter.sh valkey-server.service",
    }
    for node in nodes:
        assert f"{node}-ant-media" in monitored.dependencies[f"{REMOTE} {node}-node-exporter"]
        # The first script that installs packages installs those of the exporter, too.
        proxy = monitored.of_type(REMOTE)[f"{node}-registry-proxy"]["create"].split("  # ")[0].split()
        assert proxy[-3:] == ["10.0.0.5", "10.0.0.4", "prometheus-node-exporter"]
        # It interrupts nobody.
        assert fingerprint(monitored, node) == fingerprint(two_and_two, node)


def test_srt_opens_4200_on_origins_to_publishers() -> None:
    result = run(srt=True, publisherCidrs=["203.0.113.0/24"])
    rules = result.of_type(INGRESS)
    assert [
        (rule["securityGroupId"], rule["cidrIpv4"]) for rule in rules.values() if rule["fromPort"] == 4200
    ] == [("firewall-origins-id", "203.0.113.0/24")]


def test_names_in_aws_begin_with_project_and_stack(two_and_two: Run) -> None:
    names: dict[str, set[str]] = {}
    for resource in two_and_two.resources:
        inputs = resource.inputs
        tags = [inputs.get("tags", {}), inputs.get("rootBlockDevice", {}).get("tags", {})]
        found = [inputs.get("name"), inputs.get("namePrefix"), *(tag.get("Name") for tag in tags)]
        if resource.typ.startswith("aws:") and resource.typ != "aws:route53/record:Record":
            names.setdefault(resource.typ, set()).update(name for name in found if name)
    for name in set().union(*names.values()):
        assert f"{name}-".startswith("ant-media-cluster-unit-"), name
    # AWS requires these names to be unique in the account, or in the VPC.
    balancer = "ant-media-cluster-unit-load-balancer"
    assert {typ: names[typ] for typ in names if "iam" in typ or "secret" in typ} == {
        "aws:iam/role:Role": {balancer},
        "aws:iam/rolePolicy:RolePolicy": {balancer},
        "aws:iam/instanceProfile:InstanceProfile": {balancer},
        "aws:secretsmanager/secret:Secret": {"ant-media-cluster-unit-certificate", balancer},
    }
    groups = two_and_two.of_type("aws:ec2/securityGroup:SecurityGroup").values()
    assert {group["namePrefix"] for group in groups} == {
        f"ant-media-cluster-unit-{group}-"
        for group in ("load-balancer", "rtmp", "nodes", "origins", "database")
    }


def test_protect_covers_the_elastic_ip_and_the_database(
    two_and_two: Run,
) -> None:
    assert two_and_two.protected == []
    assert sorted(run(protect=True).protected) == [
        ("aws:ec2/eip:Eip", "load-balancer-ip"),
        (INSTANCE, "database"),
    ]


def test_remote_scripts_verify_the_host_key_and_have_a_time_limit(two_and_two: Run) -> None:
    commands = two_and_two.of_type(REMOTE)
    assert len(commands) == 6 + 30  # installing the scripts on each machine, then running them
    for name, inputs in commands.items():
        known = {"connection", "create", "stdin", "triggers", "logging", "addPreviousOutputInEnv"}
        assert set(inputs) <= known, name
        connection = revealed(inputs["connection"])
        assert connection["hostKey"].startswith("ssh-ed25519 "), name
        assert re.match(
            r"sudo timeout (--verbose )?\d+ (bash -c|/usr/local/lib/ant-media-cluster/[a-z-]+\.sh)",
            inputs["create"],
        ), name


def test_scripts_that_install_packages_may_wait_for_automatic_updates() -> None:
    folder = PROJECT / "templates/scripts"
    texts = {path.name: path.read_text() for path in folder.glob("*/*.sh")}
    (lock,) = re.findall(r'Lock::Timeout "(\d+)"', texts["configure-system.sh"])
    cluster = run(
        mediaImage="ubuntu",
        monitoringCidrs=["203.0.113.30/32"],
        hooks={"node": "sandbox/images/haproxy.sh"},
        route53Zone="ant-media.test",
    )
    limits = {
        script: int(limit)
        for inputs in cluster.of_type(REMOTE).values()
        for limit, script in re.findall(r"timeout --verbose (\d+) /\S+/(\S+)", inputs["create"])
    }
    installing = {
        name for name, text in texts.items() if re.search(r"(?m)^[^#]*\binstall_packages [^(]", text)
    } - {"prelude.sh", "install-ant-media-server.sh"}  # which set-up-media-node.sh runs
    assert {
        name
        for name in installing | {"set-up-media-node.sh", "run-hook.sh"}
        if limits[name] < int(lock) + 300
    } == set()


def runs_on_load_balancer(script: str) -> bool:
    return script.startswith(("load-balancer", "standby", "service")) or script.endswith(
        ("-drain", "-in-service")
    )


def test_remote_scripts_run_again_when_a_machine_they_depend_on_restarts(two_and_two: Run) -> None:
    nodes = ("origin1", "origin2", "edge1", "edge2")
    sizes = {name: inputs["instanceType"] for name, inputs in two_and_two.of_type(INSTANCE).items()}
    for name, inputs in two_and_two.of_type(REMOTE).items():
        machine = re.sub(
            "-(scripts|haproxy|credentials|valkey|(only-)?password|registry-proxy|ant-media)$", "", name
        )
        if runs_on_load_balancer(name):
            machine = "load-balancer"
        machines_used = [machine]
        if name == "service-servers":
            machines_used += nodes
        starts = [start for other in machines_used for start in (f"{other}-id", sizes[other])]
        if name == "service-servers":
            starts.insert(2, "service-removed-servers-id")
        if name.startswith(("database-", "standby-")) and name.endswith("password"):
            previous = "password" if name.endswith("-only-password") else "valkey"
            starts.append(f"{name.partition('-')[0]}-{previous}-id")
        if name.endswith("-ant-media"):
            starts.append(inputs["triggers"][-1])  # a digest of the secrets
        if not name.endswith(("-drain", "-in-service")) or name.startswith("service"):
            assert inputs["triggers"] == starts, name


def fingerprint(cloud: Run, node: str) -> str:
    """Returns the argument of drain-server.sh: a node that serves with it is not drained."""
    return cloud.of_type(REMOTE)[f"{node}-drain"]["create"].split("  # ")[0].split()[-1]


@pytest.mark.parametrize(
    ("changed", "restarts"),
    [
        ({"edges": {"instanceType": "c6i.xlarge"}}, {"edge1", "edge2"}),
        ({"mediaImage": "ami-0123456789abcdef0"}, {"origin1", "origin2", "edge1", "edge2"}),
        ({"licenseKey": "another-licence-key"}, {"origin1", "origin2", "edge1", "edge2"}),
        ({"mediaImage": "ami-0123456789abcdef0", "amsZip": ZIP}, {"origin1", "origin2", "edge1", "edge2"}),
        ({"sshHostKeySeed": "0dd5" * 16}, {"origin1", "origin2", "edge1", "edge2"}),
        ({"serverSettings": {"nodeGroup": "eu"}}, {"origin1", "origin2", "edge1", "edge2"}),
        (
            {"serverSettings": {"server": {"jwtServerSecretKey": "0123456789abcdef" * 2}}},
            {"origin1", "origin2", "edge1", "edge2"},
        ),
        (
            {
                "edges": {"count": 3},
                "applications": ["LiveApp"],
                "serverSettings": {"logLevel": "DEBUG", "server": {"name": "live.ant-media.test"}},
                "statisticsPassword": "a-new-password",
                "panelEmail": "boss@ant-media.test",
                "panelPassword": "another-password",
                "domain": "tv.ant-media.test",
                "drainSeconds": 5,
                "loadBalancer": {"instanceType": "c6i.xlarge"},
            },
            set[str](),
        ),
    ],
)
def test_node_is_drained_exactly_when_its_machine_or_its_server_restarts(
    two_and_two: Run, changed: dict[str, Any], restarts: set[str]
) -> None:
    cloud = run(route53Zone="ant-media.test", **changed)
    nodes = ("origin1", "origin2", "edge1", "edge2")
    assert {node for node in nodes if fingerprint(cloud, node) != fingerprint(two_and_two, node)} == restarts


def test_another_ssh_key_restarts_nothing_and_runs_only_the_installation_of_scripts(two_and_two: Run) -> None:
    key = generate_ssh_private_key()
    cloud = run(route53Zone="ant-media.test", sshPrivateKey=key)
    changed = {
        name
        for type in (INSTANCE, REMOTE)
        for name, inputs in cloud.of_type(type).items()
        if revealed(inputs) != revealed(two_and_two.of_type(type)[name])
    }
    assert changed == {name for name in cloud.of_type(REMOTE) if name.endswith("-scripts")}
    for name in changed:
        assert extract_public_key(key) in cloud.of_type(REMOTE)[name]["create"]


def test_larger_volumes_restart_nothing_and_run_only_the_installation_of_scripts_which_grows_them(
    two_and_two: Run,
) -> None:
    larger = {"volumeSize": 40}
    cloud = run(
        route53Zone="ant-media.test", origins=larger, edges=larger, loadBalancer=larger, database=larger
    )
    for name, inputs in cloud.of_type(INSTANCE).items():
        before = two_and_two.of_type(INSTANCE)[name]
        volume = before["rootBlockDevice"]
        assert revealed(inputs) == revealed({**before, "rootBlockDevice": {**volume, "volumeSize": 40}})
        command = f"{name}-scripts"
        # A trigger is an output of the instance, so that the command waits until its volume is enlarged.
        assert name in cloud.dependencies[f"{REMOTE} {command}"]
        old, new = (of.of_type(REMOTE)[command]["create"] for of in (two_and_two, cloud))
        assert (
            old.replace("/usr/local/lib/ant-media-cluster 16 ", "/usr/local/lib/ant-media-cluster 40 ") == new
        )
    changed = {
        name
        for name, inputs in cloud.of_type(REMOTE).items()
        if revealed(inputs) != revealed(two_and_two.of_type(REMOTE)[name])
    }
    assert changed == {f"{name}-scripts" for name in cloud.of_type(INSTANCE)}


def test_nodes_are_drained_and_restarted_when_the_data_of_the_registry_is_another(two_and_two: Run) -> None:
    emptied = run(Run(registry="another"))
    commands, before = emptied.of_type(REMOTE), two_and_two.of_type(REMOTE)
    for node in ("origin1", "origin2", "edge1", "edge2"):
        assert commands[f"{node}-drain"]["create"] != before[f"{node}-drain"]["create"]
        assert str(revealed(commands[f"{node}-ant-media"]["stdin"])).splitlines()[6:] == ["another"]
        assert "database-password" in emptied.dependencies[f"{REMOTE} {node}-ant-media"]


def test_each_node_reaches_the_registry_and_its_standby_through_a_proxy_of_its_own(two_and_two: Run) -> None:
    commands = two_and_two.of_type(REMOTE)
    for node in ("origin1", "origin2", "edge1", "edge2"):
        assert "set-up-registry-proxy.sh 10.0.0.5 10.0.0.4  #" in commands[f"{node}-registry-proxy"]["create"]
        url = str(revealed(commands[f"{node}-ant-media"]["stdin"])).splitlines()[2]
        assert url == f"redis://:{SECRETS['databasePassword']}@127.0.0.1:6379"
        needed = {f"{node}-registry-proxy", "database-password"}
        assert needed <= two_and_two.dependencies[f"{REMOTE} {node}-ant-media"]
    for role in ("database", "standby"):
        assert f"install-valkey.sh {role} 10.0.0.5 10.0.0.4  #" in commands[f"{role}-valkey"]["create"]


@pytest.mark.parametrize(
    "settings",
    [{"origins": {"count": 1}, "edges": {"count": 0}}, {"databaseUrl": "redis://:pw@10.9.9.9:6379"}],
)
def test_cluster_without_a_registry_of_its_own_has_no_standby(settings: dict[str, Any]) -> None:
    commands = run(**settings).of_type(REMOTE)
    assert not any("standby" in name or "registry-proxy" in name for name in commands)
    # Without the packages, install-haproxy.sh removes a standby that was there.
    assert "valkey-server" not in commands["load-balancer-haproxy"]["create"]


def test_previous_database_password_is_valid_until_every_node_has_the_new_one(two_and_two: Run) -> None:
    added, only = (two_and_two.of_type(REMOTE)[f"database-{step}"] for step in ("password", "only-password"))
    assert " set-registry-password.sh add " in added["create"].replace("/", " ")
    assert " set-registry-password.sh only " in only["create"].replace("/", " ")
    last = {"origin1-in-service", "origin2-in-service", "edge1-in-service", "edge2-in-service"}
    assert last <= two_and_two.dependencies[f"{REMOTE} database-only-password"]
    # A password that was set back leaves the other one behind: this step follows each "add", whatever the state holds.
    assert "database-password-id" in only["triggers"]


def test_another_zip_upgrades_the_nodes_and_another_url_does_not() -> None:
    def with_zip(**changes: str) -> Run:
        return run(mediaImage="ami-0123456789abcdef0", amsZip=ZIP | changes)

    before, url, zip = with_zip(), with_zip(url="https://b.org/a?key=1"), with_zip(sha256="b" * 64)
    assert fingerprint(before, "edge1") == fingerprint(url, "edge1") != fingerprint(zip, "edge1")
    command = zip.of_type(REMOTE)["edge1-ant-media"]
    assert f"set-up-media-node.sh zip:{'b' * 64} cluster " in command["create"]
    assert str(revealed(command["stdin"])).splitlines()[4] == ZIP["url"]
    assert "https://a.org" not in json.dumps(without_secrets(zip.of_type(REMOTE)))


def test_running_origins_leave_service_after_the_edges_and_new_ones_do_not_wait() -> None:
    cloud = run(Run(running_addresses=("10.0.0.8",)))
    edges = {"edge1-in-service", "edge2-in-service"}
    assert edges <= cloud.dependencies[f"{REMOTE} origin1-drain"]
    assert edges <= list_remote_steps_before(cloud, "origin1")
    assert not edges & list_remote_steps_before(cloud, "origin2")
    assert not any("origin" in name for name in cloud.dependencies[f"{REMOTE} edge1-drain"])


def test_node_returns_to_service_after_each_drain(two_and_two: Run) -> None:
    for node in ("origin1", "origin2", "edge1", "edge2"):
        returned = two_and_two.of_type(REMOTE)[f"{node}-in-service"]["create"]
        assert f"return-server.sh {node} {fingerprint(two_and_two, node)}  #" in returned
        assert two_and_two.of_type(REMOTE)[f"{node}-in-service"]["triggers"][2] == f"{node}-drain-id"


def test_running_node_is_replaced_only_after_its_drain() -> None:
    cloud = run(Run(running_addresses=("10.0.31.254",)))
    machine, script = "ant-media:machine:Machine", REMOTE
    assert "edge1-drain" in cloud.dependencies[f"{machine} edge1"]
    # A first machine boots beside the load balancer.
    assert "edge2-drain" not in cloud.dependencies[f"{machine} edge2"]
    assert "edge2-drain" in cloud.dependencies[f"{script} edge2-ant-media"]
    assert "edge1-ant-media" in cloud.dependencies[f"{script} edge1-in-service"]
    assert "edge2-in-service" in cloud.dependencies[f"{script} edge1-drain"]
    removed = f"{script} service-removed-servers"
    assert {"edge1-in-service", "edge2-in-service", "origin2-in-service"} <= cloud.dependencies[removed]
    assert "service-removed-servers" in cloud.dependencies[f"{script} service-configuration"]


def test_removed_nodes_are_drained_with_the_seconds_of_the_settings() -> None:
    cloud = run(drainSeconds=7, edges={"count": 0})
    assert (
        "sudo timeout --verbose 127 /usr/local/lib/ant-media-cluster/drain-removed-servers.sh 7 origin1 origin2  #"
        in cloud.of_type(REMOTE)["service-removed-servers"]["create"]
    )


def test_failed_commands_run_again_whatever_the_settings_are_then(two_and_two: Run) -> None:
    commands = {*two_and_two.of_type(REMOTE), *two_and_two.of_type("command:local:Command")}
    assert two_and_two.rerun_after_failure == commands


def test_media_nodes_and_database_are_reached_through_the_load_balancer(two_and_two: Run) -> None:
    for name, inputs in two_and_two.of_type(REMOTE).items():
        connection = revealed(inputs["connection"])
        if runs_on_load_balancer(name):
            assert (connection["host"], connection.get("proxy")) == ("198.51.100.1", None)
        else:
            assert connection["host"].startswith("10.0.")
            assert connection["proxy"]["host"] == "198.51.100.1"
            assert connection["proxy"]["hostKey"].startswith("ssh-ed25519 ")


def test_each_machine_has_its_own_host_key(two_and_two: Run) -> None:
    connections = [revealed(inputs["connection"]) for inputs in two_and_two.of_type(REMOTE).values()]
    keys = {connection["host"]: connection["hostKey"] for connection in connections}
    assert len(set(keys.values())) == len(keys) == 6


def test_secrets_appear_only_in_encrypted_inputs(two_and_two: Run) -> None:
    for resource in two_and_two.resources:
        plain = json.dumps(without_secrets(resource.inputs))
        for name, secret in SECRETS.items():
            assert secret not in plain, f"{name} in {resource.name}"
            assert json.dumps(secret)[1:-1] not in plain, f"{name} in {resource.name}"


def test_scripts_with_secrets_do_not_log_output(two_and_two: Run) -> None:
    for name, inputs in two_and_two.of_type(REMOTE).items():
        if any(secret in json.dumps(inputs.get("stdin")) for secret in SECRETS.values()):
            assert inputs["logging"] == "none", name


def test_single_node_is_standalone_without_a_database() -> None:
    single = run(origins={"count": 1}, edges={"count": 0})
    assert sorted(single.of_type(INSTANCE)) == ["load-balancer", "origin1"]
    create = single.of_type(REMOTE)["origin1-ant-media"]["create"]
    assert "set-up-media-node.sh installed standalone admin@live.ant-media.test " in create
    assert not any("database" in rule["securityGroupId"] for rule in single.of_type(INGRESS).values())


def test_database_url_replaces_the_database_machine() -> None:
    cluster = run(databaseUrl="mongodb+srv://user:own-database-password@cluster.mongodb.net/")
    assert "database" not in cluster.of_type(INSTANCE)
    stdin = json.dumps(cluster.of_type(REMOTE)["edge1-ant-media"]["stdin"])
    assert "mongodb+srv://user:own-database-password@cluster.mongodb.net/" in stdin


def test_application_settings_are_set_on_the_first_origin_before_it_serves() -> None:
    cloud = run(applicationSettings={"live": {"jwtControlEnabled": True, "jwtSecretKey": "hunter2"}})
    (name,) = (name for name in cloud.of_type(REMOTE) if "app-settings" in name)
    step = cloud.of_type(REMOTE)[name]
    assert name == "origin1-app-settings"
    assert """'{"live": {"jwtControlEnabled": true}}'""" in step["create"]
    assert "hunter2" not in json.dumps(without_secrets(step))
    assert "hunter2" in json.dumps(step["stdin"])
    assert name in cloud.dependencies[f"{REMOTE} origin1-in-service"]
    assert "origin1-ant-media" in cloud.dependencies[f"{REMOTE} {name}"]


def test_server_settings_reach_every_node_and_secret_ones_are_not_shown() -> None:
    server = {"cpu_limit": 85, "jwtServerSecretKey": "0123456789abcdef" * 2, "name": "live.ant-media.test"}
    cloud = run(serverSettings={"logLevel": "DEBUG", "server": server})
    for node in ("origin1", "origin2", "edge1", "edge2"):
        step = cloud.of_type(REMOTE)[f"{node}-ant-media"]
        assert (
            """'{"server.cpu_limit": 85}' '{"logLevel": "DEBUG", "server.name": "live.ant-media.test"}' LiveApp"""
            in step["create"]
        )
        assert str(server["jwtServerSecretKey"]) in str(revealed(step["stdin"])).splitlines()[3]
    assert str(server["jwtServerSecretKey"]) not in json.dumps(without_secrets(cloud.of_type(REMOTE)))


def test_each_node_announces_its_public_address_where_applications_ask_for_it(two_and_two: Run) -> None:
    cloud = run(applicationSettings={"live": {"replaceCandidateAddrWithServerAddr": True}})
    for node in ("origin1", "edge1"):
        assert (
            """'{"server.name": "198.51.100.2"}' LiveApp"""
            in cloud.of_type(REMOTE)[f"{node}-ant-media"]["create"]
        )
        assert "'{}' '{}' LiveApp" in two_and_two.of_type(REMOTE)[f"{node}-ant-media"]["create"]


def test_existing_subnets_are_used_unchanged() -> None:
    cloud = Run(
        subnets={
            "subnet-0aaaaaaaaaaaaaaaa": ("10.1.0.0/24", "vpc-1"),
            "subnet-0bbbbbbbbbbbbbbbb": ("10.1.1.0/24", "vpc-1"),
        }
    )
    run(
        cloud,
        network={
            "subnets": [
                {"id": "subnet-0aaaaaaaaaaaaaaaa", "cidr": "10.1.0.0/24"},
                {"id": "subnet-0bbbbbbbbbbbbbbbb", "cidr": "10.1.1.0/24"},
            ]
        },
    )
    assert not cloud.of_type("aws:ec2/vpc:Vpc")
    instances = cloud.of_type(INSTANCE)
    assert (instances["origin2"]["subnetId"], instances["origin2"]["privateIp"]) == (
        "subnet-0bbbbbbbbbbbbbbbb",
        "10.1.1.9",
    )
    assert {group["vpcId"] for group in cloud.of_type("aws:ec2/securityGroup:SecurityGroup").values()} == {
        "vpc-1"
    }


SUBNETS = {
    "subnet-0aaaaaaaaaaaaaaaa": ("10.1.0.0/24", "vpc-1"),
    "subnet-0bbbbbbbbbbbbbbbb": ("10.1.1.0/24", "vpc-2"),
}


@pytest.mark.parametrize(
    ("cloud", "settings", "message"),
    [
        (
            Run(subnets={"subnet-0aaaaaaaaaaaaaaaa": ("10.9.0.0/24", "vpc-1")}),
            {"network": {"subnets": [{"id": "subnet-0aaaaaaaaaaaaaaaa", "cidr": "10.1.0.0/24"}]}},
            "network.subnets[0].cidr is 10.1.0.0/24: subnet-0aaaaaaaaaaaaaaaa has 10.9.0.0/24",
        ),
        (
            Run(subnets=SUBNETS),
            {"network": {"subnets": [{"id": id, "cidr": cidr} for id, (cidr, _) in SUBNETS.items()]}},
            "network.subnets: these subnets are in several VPCs; give subnets of one",
        ),
        (
            Run(zones=("eu-west-1a",)),
            {},
            "network.zones is 2: 1 zones of this region offer c5.large, c5.xlarge, t3.small (eu-west-1a); give at most 1",
        ),
        (
            Run(zones=("us-east-1a", "us-east-1e"), lacking={"us-east-1e": "c5.xlarge"}),
            {},
            "network.zones is 2: 1 zones of this region offer c5.large, c5.xlarge, t3.small (us-east-1a); give at most 1",
        ),
        (
            Run(lacking={"eu-west-1b": "c6i.xlarge"}, current_zones={"10.0.0.0/19": "eu-west-1a", "10.0.32.0/19": "eu-west-1b"}),
            {"edges": {"instanceType": "c6i.xlarge"}},
            'edges.instanceType is "c6i.xlarge": zone eu-west-1b of this stack does not offer it',
        ),
        (
            Run(),
            {"loadBalancer": {"instanceType": "c99.large"}, "edges": {"instanceType": "c7g.large"}},
            'edges.instanceType is "c7g.large", whose processor is arm64: Ant Media\'s Marketplace image is for x86_64; '
            "give a type of x86_64, or an image of your own for arm64",
        ),
        (
            Run(),
            {"mediaImage": "ubuntu", "licenseKey": "x", "origins": {"instanceType": "c7g.large"}},
            'origins.instanceType is "c7g.large", whose processor is arm64: Ant Media\'s installer fails on it; '
            "give a type of x86_64, or amsZip",
        ),
        (
            Run(),
            {"linuxImage": "ami-0123456789abcdef0", "database": {"instanceType": "t4g.small"}},
            'database.instanceType is "t4g.small", whose processor is arm64: linuxImage ami-0123456789abcdef0 is for x86_64; '
            "give a type or an image of the same architecture",
        ),
        (
            Run(),
            {"loadBalancer": {"elasticIp": "eipalloc-0123456789abcdef0"}},
            "loadBalancer.elasticIp is eipalloc-0123456789abcdef0: give the allocation id of an Elastic IP of this account and region",
        ),
        (
            Run(elastic_ips={"eipalloc-0123456789abcdef0": {"networkInterfaceId": "eni-1"}}),
            {"loadBalancer": {"elasticIp": "eipalloc-0123456789abcdef0"}},
            "loadBalancer.elasticIp is eipalloc-0123456789abcdef0: eni-1 uses it; disassociate it, or give another one",
        ),
        (
            Run(elastic_ips={"eipalloc-0123456789abcdef0": {"instanceId": "i-edge1"}}),
            {"loadBalancer": {"elasticIp": "eipalloc-0123456789abcdef0"}},
            "loadBalancer.elasticIp is eipalloc-0123456789abcdef0: ant-media-cluster-unit-edge1 uses it",
        ),
        (
            Run(elastic_ips={"eipalloc-0123456789abcdef0": {"Name": "ant-media-cluster-unit-load-balancer"}}),
            {"loadBalancer": {"elasticIp": "eipalloc-0123456789abcdef0"}},
            "loadBalancer.elasticIp is eipalloc-0123456789abcdef0: this stack allocated it, and would release it; leave it out",
        ),
        (
            Run(subnets=WITH_PRIVATE),
            PRIVATE,
            "database.subnet.id is subnet-0bbbbbbbbbbbbbbbb: it is public, but the machine would have no public address",
        ),
        (
            Run(subnets=WITH_PRIVATE, default_route=None, subnet_routes={"subnet-0aaaaaaaaaaaaaaaa": {"gatewayId": "igw-1"}}),
            PRIVATE,
            "database.subnet.id is subnet-0bbbbbbbbbbbbbbbb: the machine downloads Debian's packages, and this subnet has no way out; "
            "add a route to a NAT gateway",
        ),
        (
            Run(subnets=WITH_PRIVATE, subnet_routes={"subnet-0aaaaaaaaaaaaaaaa": {"natGatewayId": "nat-1"}}),
            PRIVATE,
            "network.subnets[0].id is subnet-0aaaaaaaaaaaaaaaa: it has no route to an internet gateway",
        ),
        (
            Run(),
            {"loadBalancer": {"instanceType": "c99.large"}},
            'loadBalancer.instanceType is "c99.large": this region does not have it',
        ),
        (Run(images=False), {}, 'linuxImage is "debian-13": this account sees no such image in this region'),
        (
            Run(snapshot_gib=30),
            {"edges": {"volumeSize": 40}, "database": {"volumeSize": 29}},
            "database.volumeSize is 29: its image needs 30 GiB or more",
        ),
        (
            Run(vcpu_quota=5),
            {},
            "instanceType: the machines need 24 vCPUs (loadBalancer 4, database 4, origins 8, edges 8), but this account may run 5",
        ),
        (
            Run(),
            {"recordings": {"bucket": "our-recordings"}},
            'recordings.bucket is "our-recordings": this account sees no such bucket; give the name of one, or create',
        ),
        (
            Run(bucket_regions={"our-recordings": "us-east-1"}),
            {"recordings": {"bucket": "our-recordings"}},
            'recordings.bucket is "our-recordings": it is in us-east-1; give a bucket in eu-west-1, or create',
        ),
    ],
    ids=[
        "other CIDR", "several VPCs", "too few zones", "zone without the type", "zone of the stack without the type",
        "instance types", "installer on arm64", "image of another architecture", "no address", "address in use",
        "address of another machine", "own address", "public subnet", "no way out", "private subnet", "no such type", "no image", "small volume", "quota",
        "no bucket", "bucket of another region",
    ],
)  # fmt: skip
def test_settings_that_the_account_contradicts_are_refused_before_any_resource_is_created(
    cloud: Run, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SystemExit):
        run(cloud, **settings)
    assert f"  ant-media-cluster:{message}" in cloud.errors[0]
    assert not cloud.resources


def test_smaller_volumes_are_refused_with_the_size_that_aws_keeps() -> None:
    cloud = Run(
        running_addresses=("10.0.0.8",),
        volumes={"edge1": 40, "edge2": 64, "origin1": 64, "origin2": 20, "edge7": 99, "load-balancer": 16},
    )
    with pytest.raises(SystemExit):
        run(cloud, origins={"volumeSize": 20}, edges={"volumeSize": 20})
    assert [line for line in cloud.errors[0].splitlines() if "volumeSize" in line] == [
        f"  ant-media-cluster:{setting}.volumeSize is 20: the volume of ant-media-cluster-unit-{name} has 64 GiB, "
        "and AWS does not make a volume smaller; give 64 or more"
        for setting, name in (("origins", "origin1"), ("edges", "edge2"))
    ]
    assert not cloud.resources


def test_smaller_volume_of_a_machine_that_is_replaced_is_accepted() -> None:
    database = {"instanceType": "t4g.small", "volumeSize": 20}
    (address,) = {
        inputs["privateIp"] for name, inputs in run().of_type(INSTANCE).items() if name == "database"
    }
    cloud = Run(running_addresses=(address,), volumes={"database": 40, "edge1": 8})
    assert run(cloud, database=database).of_type(INSTANCE)["database"]["rootBlockDevice"]["volumeSize"] == 20


@pytest.mark.parametrize(
    "error",
    [
        "No valid credential sources found",
        "operation error EC2: DescribeInstanceTypes, api error UnauthorizedOperation: You are not authorized",
        "operation error EC2: DescribeInstanceTypes, exceeded maximum number of attempts, api error RequestLimitExceeded",
    ],
)
def test_failure_of_aws_is_reported_once_as_such(error: str) -> None:
    cloud = Run(error=error)
    with pytest.raises(SystemExit):
        run(cloud)
    (message,) = cloud.errors
    assert message.startswith("Nothing was changed, because AWS refused or did not answer: ")
    assert message.count(error) == 1
    assert "ant-media-cluster:" not in message


def test_failures_of_machines_and_address_are_explained(two_and_two: Run) -> None:
    assert two_and_two.hooked == {*two_and_two.of_type(INSTANCE), "load-balancer-ip", "network-vpc"}
    (hook,) = two_and_two.error_hooks
    failure = pulumi.ErrorHookArgs("", "", "edge1", INSTANCE, errors=["api error VcpuLimitExceeded: …"])
    with patch.object(pulumi.log, "error") as error:
        assert hook.callback(failure) is False
    assert error.call_args.args[0].startswith("ant-media-cluster:edges.instanceType: ")


def test_stopped_machine_is_never_replaced_but_stops_the_update() -> None:
    cloud = Run(stopped=("edge1", "database"))
    with pytest.raises(SystemExit):
        run(cloud)
    assert "aws ec2 start-instances --instance-ids i-database i-edge1" in cloud.errors[0]
    assert not cloud.resources

    preview = Run(stopped=("edge1",), dry_run=True)
    run(preview)
    (warning,) = preview.warnings
    assert "aws ec2 start-instances --instance-ids i-edge1" in warning
    machines = preview.of_type(INSTANCE)
    assert all("associatePublicIpAddress" in preview.ignored_changes[name] for name in machines)


def test_subnets_keep_their_zones_and_new_ones_take_the_free_zones() -> None:
    cloud = run(
        Run(current_zones={"10.0.0.0/19": "eu-west-1c", "10.0.32.0/19": "eu-west-1a"}), network={"zones": 3}
    )
    subnets = cloud.of_type("aws:ec2/subnet:Subnet").values()
    assert [subnet["availabilityZone"] for subnet in subnets] == ["eu-west-1c", "eu-west-1a", "eu-west-1b"]


def test_new_vpc_gets_another_gateway_because_the_old_one_cannot_leave_running_machines(
    two_and_two: Run,
) -> None:
    assert two_and_two.replace_on_changes["network-gateway"] == ["vpcId"]


def test_image_id_is_used_as_given_and_a_named_image_is_looked_up(two_and_two: Run) -> None:
    assert two_and_two.of_type(INSTANCE)["edge1"]["ami"] == "ami-of-679593333241"
    own = run(mediaImage="ami-0123456789abcdef0")
    assert Counter(inputs["ami"] for inputs in own.of_type(INSTANCE).values()) == {
        "ami-0123456789abcdef0": 4,
        "ami-of-136693071363": 2,
    }


BUCKET = "ant-media-cluster-unit-recordings-"


def read_app_settings(cloud: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the settings of the applications: those that previews show, and the secret ones."""
    command = cloud.of_type(REMOTE)["origin1-app-settings"]
    secret = str(revealed(command["stdin"])).splitlines()
    return json.loads(shlex.split(command["create"], comments=True)[-1]), json.loads(secret[1])


def test_recordings_create_a_private_bucket_that_outlives_the_stack_and_a_key_for_it_alone() -> None:
    cloud = run(recordings={"bucket": "create"}, applications=["live"])
    (bucket,) = cloud.of_type("aws:s3/bucket:Bucket").values()
    assert bucket["bucket"].startswith(BUCKET)
    assert bucket["forceDestroy"] is False
    (block,) = cloud.of_type("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock").values()
    assert block == {
        "bucket": "recordings-bucket-id", "blockPublicAcls": True, "blockPublicPolicy": True,
        "ignorePublicAcls": True, "restrictPublicBuckets": True,
    }  # fmt: skip
    assert cloud.retained == {"recordings-bucket", "recordings-bucket-access"}
    assert "recordings-bucket" in cloud.hooked
    (policy,) = cloud.of_type("aws:iam/userPolicy:UserPolicy").values()
    arn = f"arn:aws:s3:::{bucket['bucket']}"
    assert {statement["Resource"] for statement in json.loads(policy["policy"])["Statement"]} == {
        arn,
        f"{arn}/*",
    }
    public, secret = read_app_settings(cloud)
    assert public == {
        "live": {
            "s3BucketName": bucket["bucket"],
            "s3Permission": "bucket-owner-full-control",
            "s3RecordingEnabled": True,
            "s3RegionName": "eu-west-1",
        }
    }
    assert secret == {"live": {"s3AccessKey": "recordings-key-id", "s3SecretKey": "the-secret-key"}}
    assert "the-secret-key" not in json.dumps(without_secrets(cloud.of_type(REMOTE)))
    uploads = cloud.dependencies[f"{REMOTE} origin1-app-settings"]
    assert {"recordings-permissions", "recordings-bucket-access"} <= uploads


def test_application_settings_add_to_those_of_recordings_and_exclude_an_application() -> None:
    given = {"*": {"mp4MuxingEnabled": True, "jwtSecretKey": "x" * 32}, "live": {"s3RecordingEnabled": False}}
    cloud = run(recordings={"bucket": "create"}, applications=["live", "LiveApp"], applicationSettings=given)
    public, secret = read_app_settings(cloud)
    assert {name: values["s3RecordingEnabled"] for name, values in public.items()} == {
        "live": False,
        "LiveApp": True,
    }
    assert all(values["mp4MuxingEnabled"] for values in public.values())
    assert secret["live"].keys() == {"jwtSecretKey", "s3AccessKey", "s3SecretKey"}


def test_bucket_is_deleted_with_the_stack_only_if_a_setting_says_so() -> None:
    cloud = run(recordings={"bucket": "create", "deleteWithStack": True})
    (bucket,) = cloud.of_type("aws:s3/bucket:Bucket").values()
    assert bucket["forceDestroy"] is True
    assert not cloud.retained


def test_existing_bucket_gets_a_key_and_nothing_else() -> None:
    cloud = run(Run(bucket_regions={"our-recordings": "eu-west-1"}), recordings={"bucket": "our-recordings"})
    assert not [resource for resource in cloud.resources if resource.typ.startswith("aws:s3/")]
    assert read_app_settings(cloud)[0]["live"]["s3BucketName"] == "our-recordings"


def test_existing_elastic_ip_is_associated_and_not_of_the_stack() -> None:
    address = "eipalloc-0123456789abcdef0"
    for user in ("", "i-load-balancer"):
        cloud = Run(elastic_ips={address: {"instanceId": user}})
        run(cloud, loadBalancer={"elasticIp": address}, route53Zone="ant-media.test")
        assert not cloud.of_type("aws:ec2/eip:Eip")
        (association,) = cloud.of_type("aws:ec2/eipAssociation:EipAssociation").values()
        assert association == {"allocationId": address, "instanceId": "load-balancer-id"}
        (record,) = cloud.of_type("aws:route53/record:Record").values()
        assert record["records"] == ["198.51.100.7"]
        connection = revealed(cloud.of_type(REMOTE)["load-balancer-scripts"]["connection"])
        assert connection["host"] == "198.51.100.7"


def test_hooks_run_after_the_set_up_of_each_node_and_of_the_load_balancer(two_and_two: Run) -> None:
    assert not [name for name in two_and_two.of_type(REMOTE) if name.endswith("-hook")]
    script = "sandbox/images/haproxy.sh"
    cloud = run(
        hooks={"node": script, "loadBalancer": script}, applicationSettings={"live": {"hlsTime": "4"}}
    )
    commands = cloud.of_type(REMOTE)
    hooks = {name: command for name, command in commands.items() if name.endswith("-hook")}
    assert sorted(hooks) == ["edge1-hook", "edge2-hook", "load-balancer-hook", "origin1-hook", "origin2-hook"]
    for name, command in hooks.items():
        assert command["stdin"] == (PROJECT / script).read_text()
        assert f"{name}" in cloud.rerun_after_failure
    assert "run-hook.sh edge1 edge " in commands["edge1-hook"]["create"]
    assert "origin1-app-settings" in cloud.dependencies[f"{REMOTE} origin1-hook"]
    # A node returns to service after its hook, and the next one follows only then.
    for node in ("origin1", "edge1"):
        assert f"{node}-hook" in cloud.dependencies[f"{REMOTE} {node}-in-service"]
    assert "load-balancer-hook" in cloud.dependencies[f"{REMOTE} service-kept-certificate"]
    # After each set-up.
    assert "edge1-ant-media-id" in commands["edge1-hook"]["triggers"]


def test_hook_that_cannot_run_is_refused_before_any_resource_is_created() -> None:
    cloud = Run()
    with pytest.raises(SystemExit):
        run(cloud, hooks={"node": "hooks/none.sh", "loadBalancer": "README.md"})
    lines = cloud.errors[0].splitlines()
    assert lines[1:] == [
        '  ant-media-cluster:hooks.node is "hooks/none.sh": this file cannot be read (No such file or directory): '
        "give the path of a script in this repository",
        '  ant-media-cluster:hooks.loadBalancer is "README.md": the script has no interpreter: begin its first line with #!, '
        "such as #!/usr/bin/env bash",
    ]
    assert not cloud.resources


def test_image_follows_the_architecture_of_the_instance_type() -> None:
    cloud = run(loadBalancer={"instanceType": "t4g.small"}, database={"instanceType": "t4g.small"})
    images = {name: machine["ami"] for name, machine in cloud.of_type(INSTANCE).items()}
    debian = "ami-of-136693071363"
    assert images["load-balancer"] == images["database"] == f"{debian}-arm64"
    assert images["edge1"] == "ami-of-679593333241"
    own = run(
        Run(image_architecture="arm64"),
        mediaImage="ami-0123456789abcdef0",
        origins={"instanceType": "c7g.large"},
        edges={"instanceType": "c7g.large"},
    )
    assert own.of_type(INSTANCE)["load-balancer"]["ami"] == debian


@pytest.mark.parametrize(
    ("arm", "wanted", "replaced"),
    [((), "t4g.small", True), (("10.0.0.4",), "t4g.small", False), (("10.0.0.4",), "t3.small", True)],
)
def test_another_architecture_replaces_a_running_machine_and_the_same_one_does_not(
    arm: tuple[str, ...], wanted: str, replaced: bool
) -> None:
    cloud = Run(running_addresses=("10.0.0.4",), running_arm=arm)
    run(cloud, loadBalancer={"instanceType": wanted})
    assert ("ami" not in cloud.ignored_changes["load-balancer"]) == replaced
    assert "ami" in cloud.ignored_changes["edge1"]


def test_database_in_a_private_subnet_has_no_public_address() -> None:
    cloud = run(Run(**BEHIND_NAT), **PRIVATE)
    database = cloud.of_type(INSTANCE)["database"]
    assert database["privateIp"] == "10.1.9.5"
    assert database["subnetId"] == "subnet-0bbbbbbbbbbbbbbbb"
    assert database["associatePublicIpAddress"] is False
    assert all(
        machine["subnetId"] == "subnet-0aaaaaaaaaaaaaaaa" and machine["associatePublicIpAddress"]
        for name, machine in cloud.of_type(INSTANCE).items()
        if name != "database"
    )
    # The address of a stopped machine in a public subnet is ignored. Here nothing would ever change it.
    assert "associatePublicIpAddress" not in cloud.ignored_changes["database"]
    # A database that moves to a public subnet gets an address.
    moving = run(Run(subnets=WITH_PRIVATE, running_database=("10.1.9.5",)), network=PRIVATE["network"])
    assert moving.of_type(INSTANCE)["database"]["associatePublicIpAddress"] is True
    assert "associatePublicIpAddress" not in moving.ignored_changes["database"]


def list_remote_steps_before(cloud: Run, name: str) -> set[str]:
    """Returns all scripts and machines that a resource waits for. A component and its instance share their name."""
    waits: dict[str, set[str]] = {}
    for resource, dependencies in cloud.dependencies.items():
        waits.setdefault(resource.split(" ")[1], set()).update(dependencies)
    found: set[str] = set()
    pending = [name]
    while pending:
        new = waits.get(pending.pop(), set()) - found
        found |= new
        pending += new
    return found


def test_new_machines_are_installed_beside_each_other(two_and_two: Run) -> None:
    scripts, machines = {*two_and_two.of_type(REMOTE)}, {*two_and_two.of_type(INSTANCE)}
    for script, needed in {
        # The load balancer is the way to all others.
        "load-balancer-haproxy": {"load-balancer"},
        "database-valkey": {"database", "load-balancer"},
        "edge2-scripts": {"edge2", "load-balancer"},
        "edge2-ant-media": {"edge2", "database", "load-balancer"},
    }.items():
        before = list_remote_steps_before(two_and_two, script)
        assert before & machines == needed
        assert "load-balancer-haproxy" not in before & scripts


def test_longest_chain_of_scripts_does_not_grow_with_the_nodes(two_and_two: Run) -> None:
    def measure_longest_chain(cloud: Run) -> int:
        scripts = {*cloud.of_type(REMOTE)}
        before = {script: list_remote_steps_before(cloud, script) & scripts for script in scripts}
        length: dict[str, int] = {}
        for script in sorted(scripts, key=lambda script: len(before[script])):
            length[script] = 1 + max((length[other] for other in before[script]), default=0)
        return max(length.values())

    many = run(route53Zone="ant-media.test", origins={"count": 4}, edges={"count": 8})
    assert measure_longest_chain(many) == measure_longest_chain(two_and_two)


def test_dependencies_grow_linearly_with_the_running_nodes() -> None:
    def count_dependencies(origins: int) -> int:
        counts: dict[str, Any] = {"origins": {"count": origins}, "edges": {"count": 2 * origins}}
        machines = run(**counts).of_type(INSTANCE).values()
        cloud = run(Run(running_addresses=tuple(inputs["privateIp"] for inputs in machines)), **counts)
        assert "edge1-in-service" in list_remote_steps_before(cloud, f"origin{origins}")
        return sum(map(len, cloud.dependencies.values()))

    few, more, many = (count_dependencies(origins) for origins in (3, 6, 9))
    assert many - more == more - few


def test_edge_adds_at_most_40_kilobytes_of_inputs_to_the_state(two_and_two: Run) -> None:
    # The state has the inputs of a command twice, because its outputs repeat them, and Pulumi writes it after each step.
    inputs = [
        json.dumps(resource.inputs)
        for resource in two_and_two.resources
        if resource.name.partition("-")[0] == "edge2"
    ]
    assert len(inputs) == 7
    assert sum(map(len, inputs)) < 40_000
