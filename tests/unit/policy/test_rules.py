"""Each rule with what it refuses and what it lets pass; then the program itself, which violates none."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from policy.resource import SECRET, UNKNOWN, Resource
from policy.rules import (
    RULES,
    is_taggable,
    read_config,
    violations,
)
from policy.ingress import GROUPS, INGRESS_RULE, OLD_RULE
from tests.unit.program import PROGRAM, TAGS, run, without_secrets

PROD = read_config("prod")


def allow(port: int, to: int | None = None, on: str = "load-balancer", **end: Any) -> Resource:
    """A rule as the program makes them; who may come in is named as in the cloud."""
    depends = {"securityGroupId": [f"firewall-{on}"]}
    if "of" in end:
        depends["referencedSecurityGroupId"] = [f"firewall-{end.pop('of')}"]
        end["referencedSecurityGroupId"] = UNKNOWN
    inputs = {"ipProtocol": "tcp", "fromPort": port, "toPort": to or port, "securityGroupId": UNKNOWN, **end}
    return Resource(INGRESS_RULE, "rule", inputs, depends=depends)


def old_rule(type: str, **end: Any) -> Resource:
    inputs = {"type": type, "protocol": "tcp", "securityGroupId": "sg-1", **end}
    return Resource(OLD_RULE, "rule", inputs, depends={"securityGroupId": ["firewall-nodes"]})


def group(*ingress: Any, name: str = "firewall-nodes") -> Resource:
    return Resource(GROUPS[0], name, {"ingress": list(ingress)})


def block(port: int, to: int | None = None, **end: Any) -> dict[str, Any]:
    return {"protocol": "tcp", "fromPort": port, "toPort": to or port, **end}


def machine(type: str = "aws:ec2/instance:Instance", **inputs: Any) -> Resource:
    good = {
        "instanceType": "t3.small",
        "metadataOptions": {"httpTokens": "required"},
        "rootBlockDevice": {"encrypted": True},
        "tags": {"project": "p", "stack": "s", "owner": "o"},
    }
    return Resource(type, "edge1", {**good, **inputs})


def template(**inputs: Any) -> Resource:
    return Resource("aws:ec2/launchTemplate:LaunchTemplate", "template", inputs)


def volume(**inputs: Any) -> Resource:
    return Resource("aws:ebs/volume:Volume", "volume", inputs)


def database(**inputs: Any) -> Resource:
    return Resource("aws:rds/instance:Instance", "rds", inputs)


def command(type: str = "command:remote:Command", **inputs: Any) -> Resource:
    return Resource(type, "script", inputs)


def address(protect: bool) -> Resource:
    return Resource("aws:ec2/eip:Eip", "load-balancer-ip", {}, protect)


@dataclass(frozen=True)
class Cases:
    refuses: Mapping[str, tuple[Resource | Sequence[Resource], str]]
    """With words of what it says."""
    passes: Mapping[str, Resource | Sequence[Resource]]


KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH PRIVATE KEY-----\n"
EVERYTHING = {"protocol": "-1", "fromPort": 0, "toPort": 0}
DATABASE = Resource("aws:ec2/instance:Instance", "database", {}, protect=True)

CASES = {
    "admin-ports": Cases(
        refuses={
            "SSH": (allow(22, cidrIpv4="0.0.0.0/0"), "opens 22/tcp (SSH) to 0.0.0.0/0"),
            "the panel": (allow(4444, cidrIpv4="0.0.0.0/0"), "the web panel"),
            "the statistics over IPv6": (allow(6080, cidrIpv6="::/0"), "to ::/0"),
            "half the world": (allow(22, cidrIpv4="128.0.0.0/1"), "128.0.0.0/1"),
            "a range around it": (
                allow(4000, 5000, cidrIpv4="0.0.0.0/0"),
                "opens 4000-5000/tcp (the web panel)",
            ),
            "every protocol": (
                allow(-1, ipProtocol="-1", cidrIpv4="0.0.0.0/0"),
                "0-65535/all (SSH, the web panel",
            ),
            "TCP by its number": (allow(22, ipProtocol="6", cidrIpv4="0.0.0.0/0"), "22/tcp"),
            "in the group itself": (group(block(22, cidrBlocks=["10.0.0.0/8", "0.0.0.0/0"])), "to 0.0.0.0/0"),
            "in the group, everything": (group({**EVERYTHING, "ipv6CidrBlocks": ["::/0"]}), "0-65535/all"),
            "as an older rule": (
                old_rule("ingress", fromPort=0, toPort=65535, cidrBlocks=["0.0.0.0/0"]),
                "SSH",
            ),
            "a secret network": (allow(22, cidrIpv4=SECRET), SECRET),
            "a secret group": (Resource(GROUPS[0], "firewall-nodes", {"ingress": SECRET}), SECRET),
        },
        passes={
            "administrators": allow(22, cidrIpv4="203.0.113.0/24"),
            "a company's network": allow(4444, cidrIpv4="10.0.0.0/8"),
            "the load balancer": allow(22, on="nodes", of="load-balancer"),
            "HTTPS": allow(443, cidrIpv4="0.0.0.0/0"),
            "media around them": allow(4000, 7000, ipProtocol="udp", cidrIpv4="0.0.0.0/0"),
            "the way out": old_rule("egress", fromPort=0, toPort=65535, cidrBlocks=["0.0.0.0/0"]),
            "a network not known yet": allow(22, cidrIpv4=UNKNOWN),
        },
    ),
    "public-database": Cases(
        refuses={
            "Valkey": (allow(6379, on="database", cidrIpv4="10.0.0.0/16"), "Redis and Valkey"),
            "MongoDB in a range": (group(block(27000, 28000, cidrBlocks=["203.0.113.20/32"])), "MongoDB"),
            "all ports": (
                old_rule("ingress", fromPort=0, toPort=0, protocol="-1", cidrBlocks=["10.0.0.0/16"]),
                "MySQL",
            ),
            "RDS": (database(publiclyAccessible=True), "publiclyAccessible is True"),
        },
        passes={
            "Valkey to the nodes": allow(6379, on="database", of="nodes"),
            "PostgreSQL to a group": group(block(5432, securityGroups=["sg-1"])),
            "RDS": database(publiclyAccessible=False),
            "UDP of that number": allow(5000, 7000, ipProtocol="udp", cidrIpv4="0.0.0.0/0"),
        },
    ),
    "port-table": Cases(
        refuses={
            "another port": (allow(8080, cidrIpv4="0.0.0.0/0"), "opens 8080/tcp on firewall-load-balancer"),
            "another protocol": (allow(443, ipProtocol="udp", cidrIpv4="0.0.0.0/0"), "443/udp"),
            "a wider range": (allow(443, 444, cidrIpv4="0.0.0.0/0"), "443-444/tcp"),
            "another group": (allow(443, on="nodes", cidrIpv4="0.0.0.0/0"), "443/tcp on firewall-nodes"),
            "addresses for a group": (
                allow(5080, on="nodes", cidrIpv4="0.0.0.0/0"),
                "on firewall-nodes to 0.0.0.0/0; cluster/port_table.py has it for load-balancer, nodes",
            ),
            "another source group": (
                allow(6379, on="database", of="load-balancer"),
                "to firewall-load-balancer",
            ),
            "a foreign source group": (
                allow(5080, on="nodes", referencedSecurityGroupId="sg-1"),
                "to sg-1",
            ),
            "a prefix list": (allow(22, prefixListId="pl-1"), "to pl-1"),
            "in the group itself": (
                group(block(9000, cidrBlocks=["10.0.0.0/8"])),
                "9000/tcp on firewall-nodes",
            ),
            "a port not in it before any id": (
                Resource(INGRESS_RULE, "rule", {**allow(8080, cidrIpv4="0.0.0.0/0").inputs}),
                "opens 8080/tcp on its security group",
            ),
            "a foreign group": (
                Resource(INGRESS_RULE, "rule", {**allow(443).inputs, "securityGroupId": "sg-1"}),
                "on sg-1, a security group that",
            ),
            "a new group": (group(name="bastion"), "is a security group that"),
        },
        passes={
            "a port of it": allow(443, cidrIpv4="0.0.0.0/0"),
            "from narrower networks": allow(1935, cidrIpv4="203.0.113.0/24"),
            "from a group": allow(5080, on="nodes", of="load-balancer"),
            "from its own group": group(block(5000, self=True)),
            "a range of it": allow(50000, 60000, on="nodes", ipProtocol="udp", cidrIpv4="0.0.0.0/0"),
            "SRT": allow(4200, on="origins", ipProtocol="udp", cidrIpv4="0.0.0.0/0"),
            "a source not known yet": allow(22, cidrIpv4=UNKNOWN),
            "nothing known yet": Resource(
                INGRESS_RULE, "rule", {**allow(22).inputs, "referencedSecurityGroupId": UNKNOWN}
            ),
        },
    ),
    "imdsv2": Cases(
        refuses={
            "optional": (machine(metadataOptions={"httpTokens": "optional"}), "httpTokens is optional"),
            "not said": (machine(metadataOptions=None), "httpTokens is not set"),
            "a launch template": (template(), "httpTokens is not set"),
            "a secret": (machine(metadataOptions=SECRET), SECRET),
        },
        passes={
            "required": machine(),
            "a launch template": template(metadataOptions={"httpTokens": "required"}),
            "not known yet": machine(metadataOptions=UNKNOWN),
        },
    ),
    "encrypted-volumes": Cases(
        refuses={
            "the root": (machine(rootBlockDevice={"encrypted": False}), "rootBlockDevice.encrypted is False"),
            "the image's root": (machine(rootBlockDevice=None), "rootBlockDevice.encrypted is not set"),
            "a second one": (
                machine(ebsBlockDevices=[{"encrypted": True}, {"volumeSize": 8}]),
                "ebsBlockDevices[1].encrypted is not set",
            ),
            "one on its own": (volume(size=8), "the volume.encrypted is not set"),
            "a launch template's": (
                template(blockDeviceMappings=[{"ebs": {"encrypted": "false"}}]),
                "blockDeviceMappings[0].ebs.encrypted is false",
            ),
            "a launch template without": (template(), "is not set"),
        },
        passes={
            "the root": machine(),
            "a second one": machine(ebsBlockDevices=[{"encrypted": True}]),
            "one on its own": volume(encrypted=True),
            "a launch template's": template(blockDeviceMappings=[{"ebs": {"encrypted": "true"}}]),
            "not known yet": volume(encrypted=UNKNOWN),
        },
    ),
    "instance-types": Cases(
        refuses={
            "too large a one": (
                machine(instanceType="c5.metal"),
                "instanceType is c5.metal; take one of t3.*, ",
            ),
            "of a template": (template(instanceType="p5.48xlarge"), "p5.48xlarge"),
            "a secret": (machine(instanceType=SECRET), SECRET),
        },
        passes={
            "allowed": machine(instanceType="c5.2xlarge"),
            "allowed by a pattern": machine(instanceType="t3.micro"),
            "not known yet": machine(instanceType=UNKNOWN),
        },
    ),
    "command-secrets": Cases(
        refuses={
            "a key": (command(create=f"ssh-add - <<<'{KEY}'"), "create holds a private key"),
            "a key on plain stdin": (command(create="ssh-add -", stdin=KEY), "stdin holds a private key"),
            "a URL": (
                command(create="mongosh mongodb://ams:hunter22@db"),
                "create holds a password in a URL",
            ),
            "a URL without a user": (command(create="valkey-cli -u redis://:hunter22@10.0.0.5"), "in a URL"),
            "an access key": (
                command(update="aws configure set x AKIAIOSFODNN7EXAMPLE"),
                "update holds an AWS access key",
            ),
            "an argument": (command(delete="leave --password hunter22"), "delete holds a password"),
            "an assignment": (command(create="DB_PASSWORD='hunter22' start"), "create holds a password"),
            "in the environment": (
                command(environment={"URL": "redis://x:hunter22@db"}),
                "environment.URL holds",
            ),
            "JSON": (command(stdin='{"licenseKey": 1, "apiKey": "hunter22"}'), "stdin holds a password"),
            "marked as a secret": (
                command(create=SECRET),
                "create holds a secret, which an error would print",
            ),
            "marked, in the environment": (
                command(environment={"A": SECRET}),
                "environment.A holds a secret",
            ),
            "on this machine": (command("command:local:Command", create=SECRET), "create holds a secret"),
            "in the environment, by its name": (
                command(environment={"DATABASE_PASSWORD": "hunter2222"}),
                "environment.DATABASE_PASSWORD holds a password;",
            ),
            "to an interpreter": (
                command(interpreter=["mysql", "--password=hunter22"]),
                "interpreter[1] holds",
            ),
            "in a trigger": (command(triggers=[{"token": "hunter22"}]), "triggers[0].token holds"),
            "to log in": (
                command(connection={"host": "10.0.0.5", "password": "#hunter22"}),
                "connection.password holds a password; make it a secret",
            ),
            "a key to log in": (
                command(connection={"privateKey": KEY}),
                "connection.privateKey holds a private key",
            ),
            "in a file from here": (
                command("command:remote:CopyToRemote", source={"text": "api_key=hunter22"}),
                "source.text holds a password",
            ),
            "in an older file": (
                command("command:remote:CopyFile", connection={"password": "hunter22"}),
                "connection.password",
            ),
            "to curl": (
                command(create="curl -fsu ams:hunter22 https://x"),
                "create holds a password for curl",
            ),
            "a header": (
                command(create="curl -H 'Authorization: Bearer hunter22'"),
                "create holds a password for HTTP",
            ),
            "a token for a URL": (
                command(create="git clone https://ghp_0123456789abcdef@github.com/a/b"),
                "create holds a token in a URL",
            ),
            "a key in a comment": (command(create=f"# {KEY}\ntrue"), "create holds a private key"),
            "a key in user data": (
                machine(userData=f"#!/bin/sh\necho '{KEY}'"),
                "userData holds a private key",
            ),
            "an access key in base64": (
                template(userData=b64encode(b"export A=AKIAIOSFODNN7EXAMPLE").decode()),
                "userData holds an AWS access key",
            ),
        },
        passes={
            "a secret in the environment that is not known yet": command(
                environment={"DB_PASSWORD": UNKNOWN}
            ),
            "an interpreter": command(interpreter=["/bin/bash", "-c"], triggers=["token-1"]),
            "to log in": command(connection={"host": "10.0.0.5", "password": SECRET, "privateKey": SECRET}),
            "a file from here": command("command:remote:CopyToRemote", source={"text": "workers=4"}),
            "a file with a password": command(
                create="login --password-file /x", environment={"TOKEN_FILE": "/x"}
            ),
            "the name of a secret, as an argument": command(
                create="aws get --secret-id arn:aws:secretsmanager:x"
            ),
            "a token's time": command(create='curl -H "X-aws-ec2-metadata-token-ttl-seconds: 21600"'),
            "a comment": command(create="# password: as the panel shows it\ntrue\n  # token = 1234"),
            "curl with what a shell puts in": command(
                create='curl -u "ams:$PASSWORD" -H "Authorization: Bearer $TOKEN" https://$TOKEN@x'
            ),
            "a user and a group": command(create="docker run -u 1000:1000 x; install https://operator@x"),
            "user data": machine(userData="#!/bin/sh\ntrue"),
            "secret user data": machine(userData=SECRET, userDataBase64=None),
            "secret stdin": command(create="sudo set-password.sh", stdin=SECRET),
            "what a shell puts in": command(create='login --password "$PASSWORD" --token=$(cat token)'),
            "a public key": command(stdin="-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"),
            "a URL with a port": command(create="curl https://live.ant-media.test:5443/LiveApp?user=a@b"),
            "the name of a secret": command(
                create="get arn:aws:secretsmanager:eu-west-1:1:secret:certificate"
            ),
            "not known yet": command(create=UNKNOWN, environment=UNKNOWN),
            "a long line of words": command(stdin="a-" * 100_000 + "password-" * 10_000),
            "what is no command": Resource("aws:ec2/eip:Eip", "ip", {"create": SECRET}),
        },
    ),
    "tags": Cases(
        refuses={
            "none": (machine(tags=None), "has no tag project, stack, owner"),
            "one missing": (machine(tags={"project": "p", "stack": "s"}), "has no tag owner"),
            "an empty one": (machine(tags={"project": "p", "stack": "s", "owner": ""}), "has no tag owner"),
        },
        passes={
            "all": machine(),
            "from the provider": machine(
                tags={"Name": "x"}, tagsAll={"project": "p", "stack": "s", "owner": "o"}
            ),
            "what has no tags": Resource("aws:route53/record:Record", "record", {}),
            "what is not in AWS": command(create="true"),
            "not known yet": machine(tags=UNKNOWN),
        },
    ),
    "protected-resources": Cases(
        refuses={
            "gone": ([address(protect=True)], "database (aws:ec2/instance:Instance) is to stay"),
            "not protected": (
                [address(protect=False), DATABASE],
                "is not protected; set ant-media-cluster:protect",
            ),
            "another of its name": (
                [DATABASE, Resource("aws:ec2/eipAssociation:EipAssociation", "load-balancer-ip", {}, True)],
                "load-balancer-ip (aws:ec2/eip:Eip) is to stay",
            ),
        },
        passes={"there and protected": [address(protect=True), DATABASE]},
    ),
}


def found(rule: str, resources: Resource | Sequence[Resource]) -> list[str]:
    given = [resources] if isinstance(resources, Resource) else resources
    return [violation.what for violation in violations(given, PROD) if violation.rule == rule]


@pytest.mark.parametrize(
    ("rule", "resources", "says"),
    [
        pytest.param(rule, resources, says, id=f"{rule}: {case}")
        for rule, cases in CASES.items()
        for case, (resources, says) in cases.refuses.items()
    ],
)
def test_refuses(rule: str, resources: Resource | Sequence[Resource], says: str) -> None:
    (what,) = found(rule, resources)
    assert says in what
    assert "; " in what, "it says nothing of what would do"


@pytest.mark.parametrize(
    ("rule", "resources"),
    [
        pytest.param(rule, resources, id=f"{rule}: {case}")
        for rule, cases in CASES.items()
        for case, resources in cases.passes.items()
    ],
)
def test_lets_pass(rule: str, resources: Resource | Sequence[Resource]) -> None:
    assert found(rule, resources) == []


def test_every_rule_is_tried_both_ways() -> None:
    assert CASES.keys() == RULES.keys()
    assert all(cases.refuses and cases.passes for cases in CASES.values())


def test_the_configuration_of_a_stack_comes_over_the_common_one() -> None:
    assert read_config("") == read_config("dev")
    assert read_config("") | {"protected-resources": PROD["protected-resources"]} == PROD
    assert {rule: options.keys() for rule, options in PROD.items()} == {
        rule: RULES[rule].options.keys() for rule in PROD
    }


@pytest.mark.parametrize("stack", ["dev", "prod", "sandbox"])
def test_the_program_violates_nothing_with_the_settings_of(stack: str) -> None:
    config = yaml.safe_load((PROGRAM.parent / f"Pulumi.{stack}.yaml").read_text())["config"]
    settings = {key.partition(":")[2]: value for key, value in config.items() if "ant-media-cluster:" in key}
    acme = {"email": "operator@ant-media.test", **settings.pop("acme", {})}
    made = run(srt=True, acme=acme, **settings)
    default_tags = {**TAGS, **config["aws:defaultTags"]["tags"]}
    resources: list[Resource] = []
    for resource in made.resources:
        inputs = without_secrets(resource.inputs)
        if is_taggable(resource.typ):
            # As the provider does it.
            inputs["tags"] = {**default_tags, **inputs.get("tags", {})}
        # An id of the mocks tells whose it is.
        depends = {key: [value[:-3]] for key, value in inputs.items() if str(value).endswith("-id")}
        protect = (resource.typ, resource.name) in made.protected
        resources.append(Resource(resource.typ, resource.name, inputs, protect, depends))
    assert violations(resources, read_config(stack)) == []
