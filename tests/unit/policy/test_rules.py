"""Tests of the policy rules: inputs that each rule refuses or allows, and the program itself, which violates none."""

import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from policy.ingress import INGRESS_RULE_TYPE, LEGACY_RULE_TYPE, SECURITY_GROUP_TYPES
from policy.resource import SECRET, UNKNOWN, Resource
from policy.rules import RULES, find_violations, is_taggable, read_config
from tests.project import PROJECT
from tests.unit.program import PROGRAM, TAGS, run, without_secrets

PROD = read_config("prod")


def ingress_rule(port: int, to: int | None = None, group: str = "load-balancer", **source: Any) -> Resource:
    """Returns an ingress rule as the program defines it. `source_group` names a security group; others are inputs."""
    dependencies = {"securityGroupId": [f"firewall-{group}"]}
    if "source_group" in source:
        dependencies["referencedSecurityGroupId"] = [f"firewall-{source.pop('source_group')}"]
        source["referencedSecurityGroupId"] = UNKNOWN
    inputs = {
        "ipProtocol": "tcp",
        "fromPort": port,
        "toPort": to or port,
        "securityGroupId": UNKNOWN,
        **source,
    }
    return Resource(INGRESS_RULE_TYPE, "rule", inputs, dependencies=dependencies)


def legacy_rule(type: str, **source: Any) -> Resource:
    inputs = {"type": type, "protocol": "tcp", "securityGroupId": "sg-1", **source}
    return Resource(LEGACY_RULE_TYPE, "rule", inputs, dependencies={"securityGroupId": ["firewall-nodes"]})


def security_group(*ingress: Any, name: str = "firewall-nodes") -> Resource:
    return Resource(SECURITY_GROUP_TYPES[0], name, {"ingress": list(ingress)})


def ingress_block(port: int, to: int | None = None, **source: Any) -> dict[str, Any]:
    return {"protocol": "tcp", "fromPort": port, "toPort": to or port, **source}


BUCKET = Resource(
    "aws:s3/bucket:Bucket",
    "recordings-bucket",
    {"bucket": "a-recordings", "tags": {"project": "p", "stack": "s", "owner": "o"}},
)


def access_block(of: str, bucket: str = UNKNOWN, **inputs: bool) -> Resource:
    """Returns a block of public access for the bucket resource `of`."""
    blocks = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    return Resource(
        "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
        "block",
        {"bucket": bucket, **dict.fromkeys(blocks, True), **inputs},
        dependencies={"bucket": [of] if of else []},
    )


def instance(type: str = "aws:ec2/instance:Instance", **inputs: Any) -> Resource:
    good = {
        "instanceType": "t3.small",
        "metadataOptions": {"httpTokens": "required"},
        "rootBlockDevice": {"encrypted": True},
        "tags": {"project": "p", "stack": "s", "owner": "o"},
    }
    return Resource(type, "edge1", {**good, **inputs})


def launch_template(**inputs: Any) -> Resource:
    return Resource("aws:ec2/launchTemplate:LaunchTemplate", "template", inputs)


def volume(**inputs: Any) -> Resource:
    return Resource("aws:ebs/volume:Volume", "volume", inputs)


def rds_instance(**inputs: Any) -> Resource:
    return Resource("aws:rds/instance:Instance", "rds", inputs)


def command(type: str = "command:remote:Command", **inputs: Any) -> Resource:
    return Resource(type, "script", inputs)


PROVIDER_TAGS = {"project": "p", "stack": "s", "owner": "o"}
# The engine passes objects in a provider's inputs as JSON text.
PROVIDER = {"region": "eu-west-1", "defaultTags": json.dumps({"tags": PROVIDER_TAGS})}


def tagged(provider: Mapping[str, Any], type: str = "aws:ec2/eip:Eip", **inputs: Any) -> Resource:
    return Resource(type, "resource", inputs, provider=provider)


def address(protect: bool) -> Resource:
    return Resource("aws:ec2/eip:Eip", "load-balancer-ip", {}, protect)


@dataclass(frozen=True)
class Cases:
    refused: Mapping[str, tuple[Resource | Sequence[Resource], str]]
    """Resources, and a part of the expected message."""
    allowed: Mapping[str, Resource | Sequence[Resource]]


KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH PRIVATE KEY-----\n"
EVERYTHING = {"protocol": "-1", "fromPort": 0, "toPort": 0}
DATABASE = Resource("aws:ec2/instance:Instance", "database", {}, protect=True)

CASES = {
    "admin-ports": Cases(
        refused={
            "SSH": (ingress_rule(22, cidrIpv4="0.0.0.0/0"), "opens 22/tcp (SSH) to 0.0.0.0/0"),
            "statistics": (ingress_rule(6080, cidrIpv4="0.0.0.0/0"), "HAProxy's statistics"),
            "statistics over IPv6": (ingress_rule(6080, cidrIpv6="::/0"), "to ::/0"),
            "a network of /1": (ingress_rule(22, cidrIpv4="128.0.0.0/1"), "128.0.0.0/1"),
            "a range that includes the port": (
                ingress_rule(6000, 7000, cidrIpv4="0.0.0.0/0"),
                "opens 6000-7000/tcp (HAProxy's statistics)",
            ),
            "all protocols": (
                ingress_rule(-1, ipProtocol="-1", cidrIpv4="0.0.0.0/0"),
                "0-65535/all (SSH, HAProxy's statistics",
            ),
            "TCP by its number": (ingress_rule(22, ipProtocol="6", cidrIpv4="0.0.0.0/0"), "22/tcp"),
            "an ingress block": (
                security_group(ingress_block(22, cidrBlocks=["10.0.0.0/8", "0.0.0.0/0"])),
                "to 0.0.0.0/0",
            ),
            "an ingress block for everything": (
                security_group({**EVERYTHING, "ipv6CidrBlocks": ["::/0"]}),
                "0-65535/all",
            ),
            "a legacy rule": (
                legacy_rule("ingress", fromPort=0, toPort=65535, cidrBlocks=["0.0.0.0/0"]),
                "SSH",
            ),
            "a secret network": (ingress_rule(22, cidrIpv4=SECRET), SECRET),
            "secret ingress blocks": (
                Resource(SECURITY_GROUP_TYPES[0], "firewall-nodes", {"ingress": SECRET}),
                SECRET,
            ),
        },
        allowed={
            "administrators": ingress_rule(22, cidrIpv4="203.0.113.0/24"),
            "a company's network": ingress_rule(6080, cidrIpv4="10.0.0.0/8"),
            "the panel's links": ingress_rule(4444, cidrIpv4="0.0.0.0/0"),
            "the load balancer's group": ingress_rule(22, group="nodes", source_group="load-balancer"),
            "HTTPS": ingress_rule(443, cidrIpv4="0.0.0.0/0"),
            "UDP": ingress_rule(4000, 7000, ipProtocol="udp", cidrIpv4="0.0.0.0/0"),
            "an egress rule": legacy_rule("egress", fromPort=0, toPort=65535, cidrBlocks=["0.0.0.0/0"]),
            "an unknown network": ingress_rule(22, cidrIpv4=UNKNOWN),
        },
    ),
    "public-database": Cases(
        refused={
            "Valkey": (ingress_rule(6379, group="database", cidrIpv4="10.0.0.0/16"), "Redis and Valkey"),
            "MongoDB in a range": (
                security_group(ingress_block(27000, 28000, cidrBlocks=["203.0.113.20/32"])),
                "MongoDB",
            ),
            "all ports": (
                legacy_rule("ingress", fromPort=0, toPort=0, protocol="-1", cidrBlocks=["10.0.0.0/16"]),
                "MySQL",
            ),
            "RDS": (rds_instance(publiclyAccessible=True), "publiclyAccessible is True"),
        },
        allowed={
            "Valkey to the nodes": ingress_rule(6379, group="database", source_group="nodes"),
            "PostgreSQL to a group": security_group(ingress_block(5432, securityGroups=["sg-1"])),
            "RDS": rds_instance(publiclyAccessible=False),
            "UDP on the same port": ingress_rule(5000, 7000, ipProtocol="udp", cidrIpv4="0.0.0.0/0"),
        },
    ),
    "port-table": Cases(
        refused={
            "another port": (
                ingress_rule(8080, cidrIpv4="0.0.0.0/0"),
                "opens 8080/tcp on firewall-load-balancer",
            ),
            "another protocol": (ingress_rule(443, ipProtocol="udp", cidrIpv4="0.0.0.0/0"), "443/udp"),
            "a wider range": (ingress_rule(443, 444, cidrIpv4="0.0.0.0/0"), "443-444/tcp"),
            "another group": (
                ingress_rule(443, group="nodes", cidrIpv4="0.0.0.0/0"),
                "443/tcp on firewall-nodes",
            ),
            "addresses instead of a group": (
                ingress_rule(5080, group="nodes", cidrIpv4="0.0.0.0/0"),
                "on firewall-nodes to 0.0.0.0/0; cluster/port_table.py allows only load-balancer, nodes",
            ),
            "metrics of a node to Prometheus": (
                ingress_rule(9100, group="nodes", cidrIpv4="203.0.113.30/32"),
                "cluster/port_table.py allows only load-balancer",
            ),
            "another source group": (
                ingress_rule(5000, group="nodes", source_group="load-balancer"),
                "to firewall-load-balancer",
            ),
            "a source group outside the stack": (
                ingress_rule(5080, group="nodes", referencedSecurityGroupId="sg-1"),
                "to sg-1",
            ),
            "a group instead of addresses": (
                ingress_rule(2936, group="rtmp", source_group="nodes"),
                "allows only publishers",
            ),
            "a prefix list": (ingress_rule(22, prefixListId="pl-1"), "to pl-1"),
            "an ingress block": (
                security_group(ingress_block(9000, cidrBlocks=["10.0.0.0/8"])),
                "9000/tcp on firewall-nodes",
            ),
            "an unlisted port on an unknown group": (
                Resource(INGRESS_RULE_TYPE, "rule", {**ingress_rule(8080, cidrIpv4="0.0.0.0/0").inputs}),
                "opens 8080/tcp on its security group",
            ),
            "a group outside the stack": (
                Resource(INGRESS_RULE_TYPE, "rule", {**ingress_rule(443).inputs, "securityGroupId": "sg-1"}),
                "on sg-1, a security group that",
            ),
            "a new group": (security_group(name="bastion"), "is a security group that"),
        },
        allowed={
            "a listed port": ingress_rule(443, cidrIpv4="0.0.0.0/0"),
            "narrower networks": ingress_rule(1935, group="rtmp", cidrIpv4="203.0.113.0/24"),
            "RTMPS on another port": ingress_rule(2936, group="rtmp", cidrIpv4="0.0.0.0/0"),
            "a source group": ingress_rule(5080, group="nodes", source_group="load-balancer"),
            "metrics of a node": ingress_rule(9100, group="nodes", source_group="load-balancer"),
            "a group as its own source": security_group(ingress_block(5000, self=True)),
            "a listed range": ingress_rule(
                50000, 60000, group="nodes", ipProtocol="udp", cidrIpv4="0.0.0.0/0"
            ),
            "SRT": ingress_rule(4200, group="origins", ipProtocol="udp", cidrIpv4="0.0.0.0/0"),
            "an unknown source": ingress_rule(22, cidrIpv4=UNKNOWN),
            "an unknown group and source": Resource(
                INGRESS_RULE_TYPE, "rule", {**ingress_rule(22).inputs, "referencedSecurityGroupId": UNKNOWN}
            ),
        },
    ),
    "imdsv2": Cases(
        refused={
            "optional": (instance(metadataOptions={"httpTokens": "optional"}), "httpTokens is optional"),
            "not set": (instance(metadataOptions=None), "httpTokens is not set"),
            "a launch template": (launch_template(), "httpTokens is not set"),
            "a secret": (instance(metadataOptions=SECRET), SECRET),
        },
        allowed={
            "required": instance(),
            "a launch template": launch_template(metadataOptions={"httpTokens": "required"}),
            "unknown": instance(metadataOptions=UNKNOWN),
        },
    ),
    "encrypted-volumes": Cases(
        refused={
            "a root volume": (
                instance(rootBlockDevice={"encrypted": False}),
                "rootBlockDevice.encrypted is False",
            ),
            "a root volume from the image": (
                instance(rootBlockDevice=None),
                "rootBlockDevice.encrypted is not set",
            ),
            "an additional volume": (
                instance(ebsBlockDevices=[{"encrypted": True}, {"volumeSize": 8}]),
                "ebsBlockDevices[1].encrypted is not set",
            ),
            "an EBS volume": (volume(size=8), "the volume.encrypted is not set"),
            "a volume of a launch template": (
                launch_template(blockDeviceMappings=[{"ebs": {"encrypted": "false"}}]),
                "blockDeviceMappings[0].ebs.encrypted is false",
            ),
            "a launch template without volumes": (launch_template(), "is not set"),
        },
        allowed={
            "a root volume": instance(),
            "an additional volume": instance(ebsBlockDevices=[{"encrypted": True}]),
            "an EBS volume": volume(encrypted=True),
            "a volume of a launch template": launch_template(
                blockDeviceMappings=[{"ebs": {"encrypted": "true"}}]
            ),
            "unknown": volume(encrypted=UNKNOWN),
        },
    ),
    "instance-types": Cases(
        refused={
            "a type that is not allowed": (
                instance(instanceType="c5.metal"),
                "instanceType is c5.metal; use one of t3.*, ",
            ),
            "a launch template": (launch_template(instanceType="p5.48xlarge"), "p5.48xlarge"),
            "a secret": (instance(instanceType=SECRET), SECRET),
        },
        allowed={
            "allowed": instance(instanceType="c5.2xlarge"),
            "allowed by a pattern": instance(instanceType="t3.micro"),
            "unknown": instance(instanceType=UNKNOWN),
        },
    ),
    "command-secrets": Cases(
        refused={
            "a private key": (command(create=f"ssh-add - <<<'{KEY}'"), "create contains a private key"),
            "a private key on stdin": (
                command(create="ssh-add -", stdin=KEY),
                "stdin contains a private key",
            ),
            "a password in a URL": (
                command(create="mongosh mongodb://ams:hunter22@db"),
                "create contains a password in a URL",
            ),
            "a password in a URL without user": (
                command(create="valkey-cli -u redis://:hunter22@10.0.0.5"),
                "in a URL",
            ),
            "an access key": (
                command(update="aws configure set x AKIAIOSFODNN7EXAMPLE"),
                "update contains an AWS access key",
            ),
            "an argument": (command(delete="leave --password hunter22"), "delete contains a password"),
            "an assignment": (command(create="DB_PASSWORD='hunter22' start"), "create contains a password"),
            "a URL in the environment": (
                command(environment={"URL": "redis://x:hunter22@db"}),
                "environment.URL contains",
            ),
            "JSON": (command(stdin='{"licenseKey": 1, "apiKey": "hunter22"}'), "stdin contains a password"),
            "a Pulumi secret": (
                command(create=SECRET),
                "create contains a secret, which an error message would print",
            ),
            "a Pulumi secret in the environment": (
                command(environment={"A": SECRET}),
                "environment.A contains a secret",
            ),
            "a local command": (command("command:local:Command", create=SECRET), "create contains a secret"),
            "an environment variable named as a password": (
                command(environment={"DATABASE_PASSWORD": "hunter2222"}),
                "environment.DATABASE_PASSWORD contains a password;",
            ),
            "an interpreter argument": (
                command(interpreter=["mysql", "--password=hunter22"]),
                "interpreter[1] contains",
            ),
            "a trigger": (command(triggers=[{"token": "hunter22"}]), "triggers[0].token contains"),
            "a connection's password": (
                command(connection={"host": "10.0.0.5", "password": "#hunter22"}),
                "connection.password contains a password; mark it as secret",
            ),
            "a connection's private key": (
                command(connection={"privateKey": KEY}),
                "connection.privateKey contains a private key",
            ),
            "a copied file": (
                command("command:remote:CopyToRemote", source={"text": "api_key=hunter22"}),
                "source.text contains a password",
            ),
            "CopyFile": (
                command("command:remote:CopyFile", connection={"password": "hunter22"}),
                "connection.password",
            ),
            "a password for curl": (
                command(create="curl -fsu ams:hunter22 https://x"),
                "create contains a password for curl",
            ),
            "an HTTP header": (
                command(create="curl -H 'Authorization: Bearer hunter22'"),
                "create contains a password for HTTP",
            ),
            "a token in a URL": (
                command(create="git clone https://ghp_0123456789abcdef@github.com/a/b"),
                "create contains a token in a URL",
            ),
            "a private key in a comment": (command(create=f"# {KEY}\ntrue"), "create contains a private key"),
            "a private key in user data": (
                instance(userData=f"#!/bin/sh\necho '{KEY}'"),
                "userData contains a private key",
            ),
            "an access key in base64 user data": (
                launch_template(userData=b64encode(b"export A=AKIAIOSFODNN7EXAMPLE").decode()),
                "userData contains an AWS access key",
            ),
        },
        allowed={
            "an unknown environment variable": command(environment={"DB_PASSWORD": UNKNOWN}),
            "an interpreter": command(interpreter=["/bin/bash", "-c"], triggers=["token-1"]),
            "a connection's password": command(
                connection={"host": "10.0.0.5", "password": SECRET, "privateKey": SECRET}
            ),
            "a copied file": command("command:remote:CopyToRemote", source={"text": "workers=4"}),
            "a password file": command(create="login --password-file /x", environment={"TOKEN_FILE": "/x"}),
            "an argument with a secret's ARN": command(create="aws get --secret-id arn:aws:secretsmanager:x"),
            "a token's lifetime": command(create='curl -H "X-aws-ec2-metadata-token-ttl-seconds: 21600"'),
            "a comment": command(create="# password: as the panel shows it\ntrue\n  # token = 1234"),
            "curl with shell variables": command(
                create='curl -u "ams:$PASSWORD" -H "Authorization: Bearer $TOKEN" https://$TOKEN@x'
            ),
            "a user and group id": command(create="docker run -u 1000:1000 x; install https://operator@x"),
            "user data": instance(userData="#!/bin/sh\ntrue"),
            "secret user data": instance(userData=SECRET, userDataBase64=None),
            "secret stdin": command(create="sudo set-password.sh", stdin=SECRET),
            "shell expansions": command(create='login --password "$PASSWORD" --token=$(cat token)'),
            "a public key": command(stdin="-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"),
            "a URL with a port": command(create="curl https://live.ant-media.test:5443/LiveApp?user=a@b"),
            "a secret's ARN": command(create="get arn:aws:secretsmanager:eu-west-1:1:secret:certificate"),
            "unknown": command(create=UNKNOWN, environment=UNKNOWN),
            "a long line of words": command(stdin="a-" * 100_000 + "password-" * 10_000),
            "another type of resource": Resource("aws:ec2/eip:Eip", "ip", {"create": SECRET}),
        },
    ),
    "tags": Cases(
        refused={
            "no tags": (instance(tags=None), "has no tag project, stack, owner"),
            "a missing tag": (instance(tags={"project": "p", "stack": "s"}), "has no tag owner"),
            "an empty tag": (instance(tags={"project": "p", "stack": "s", "owner": ""}), "has no tag owner"),
            "no default tags": (tagged({"region": "eu-west-1"}, tags={"Name": "x"}), "has no tag project"),
            "a default tag that the resource empties": (
                tagged(PROVIDER, tags={"owner": ""}, tagsAll={**PROVIDER_TAGS, "owner": ""}),
                "has no tag owner",
            ),
            "a rule without default tags": (tagged({}, INGRESS_RULE_TYPE), "has no tag project"),
            "a missing default tag": (
                tagged({"defaultTags": json.dumps({"tags": {"project": "p"}})}, INGRESS_RULE_TYPE),
                "has no tag stack, owner",
            ),
            "secret default tags": (tagged({"defaultTags": SECRET}), "has no tag project"),
        },
        allowed={
            "all tags": instance(),
            "default tags in tagsAll": instance(tags={"Name": "x"}, tagsAll=PROVIDER_TAGS),
            "default tags of the provider": tagged(PROVIDER, tags={"Name": "x"}),
            "default tags on a rule": tagged(PROVIDER, INGRESS_RULE_TYPE),
            "default tags of a provider in the program": tagged({"defaultTags": {"tags": PROVIDER_TAGS}}),
            "tags of the resource and of the provider": tagged(
                {"defaultTags": json.dumps({"tags": {"project": "p"}})}, tags={"stack": "s", "owner": "o"}
            ),
            "unknown default tags": tagged({"defaultTags": UNKNOWN}),
            "unknown tagsAll": tagged({}, tags={"Name": UNKNOWN}, tagsAll=UNKNOWN),
            "an untaggable resource": Resource("aws:route53/record:Record", "record", {}),
            "a resource outside AWS": command(create="true"),
            "unknown": instance(tags=UNKNOWN),
        },
    ),
    "private-buckets": Cases(
        refused={
            "no block": (BUCKET, "has no BucketPublicAccessBlock; add one"),
            "the block of another bucket": (
                [BUCKET, access_block("another")],
                "has no BucketPublicAccessBlock",
            ),
            "a block with a gap": (
                [BUCKET, access_block("recordings-bucket", blockPublicPolicy=False)],
                "blockPublicPolicy is False; set it to true",
            ),
        },
        allowed={
            "a new bucket": [BUCKET, access_block("recordings-bucket")],
            "an existing bucket": [BUCKET, access_block("", bucket="a-recordings")],
        },
    ),
    "protected-resources": Cases(
        refused={
            "a missing resource": (
                [address(protect=True)],
                "database (aws:ec2/instance:Instance) must exist, but is missing",
            ),
            "not protected": (
                [address(protect=False), DATABASE],
                "must be protected, but is not; set ant-media-cluster:protect",
            ),
            "a resource of another type": (
                [DATABASE, Resource("aws:ec2/eipAssociation:EipAssociation", "load-balancer-ip", {}, True)],
                "load-balancer-ip (aws:ec2/eip:Eip) must exist, but is missing",
            ),
        },
        allowed={"protected resources": [address(protect=True), DATABASE]},
    ),
}


def find_messages(rule: str, resources: Resource | Sequence[Resource]) -> list[str]:
    """Returns the messages of one rule, with the policy configuration of prod."""
    stack = [resources] if isinstance(resources, Resource) else resources
    return [violation.message for violation in find_violations(stack, PROD) if violation.rule == rule]


@pytest.mark.parametrize(
    ("rule", "resources", "expected"),
    [
        pytest.param(rule, resources, expected, id=f"{rule}: {case}")
        for rule, cases in CASES.items()
        for case, (resources, expected) in cases.refused.items()
    ],
)
def test_rule_refuses(rule: str, resources: Resource | Sequence[Resource], expected: str) -> None:
    (message,) = find_messages(rule, resources)
    assert expected in message
    assert "; " in message, "the message names no remedy"


@pytest.mark.parametrize(
    ("rule", "resources"),
    [
        pytest.param(rule, resources, id=f"{rule}: {case}")
        for rule, cases in CASES.items()
        for case, resources in cases.allowed.items()
    ],
)
def test_rule_allows(rule: str, resources: Resource | Sequence[Resource]) -> None:
    assert find_messages(rule, resources) == []


def test_every_rule_has_refused_and_allowed_cases() -> None:
    assert CASES.keys() == RULES.keys()
    assert all(cases.refused and cases.allowed for cases in CASES.values())


def test_rules_need_only_the_standard_library() -> None:
    # policy/.venv contains pulumi_policy, but not the packages of the program.
    code = "import sys, policy.rules; print([name for name in ('pulumi', 'pydantic', 'yaml') if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_stack_configuration_overrides_the_default() -> None:
    assert read_config("") == read_config("dev")
    assert read_config("") | {"protected-resources": PROD["protected-resources"]} == PROD
    assert {rule: options.keys() for rule, options in PROD.items()} == {
        rule: RULES[rule].options.keys() for rule in PROD
    }


# Written with the provider's plugin framework. Its inputs show no default tags.
FRAMEWORK_TYPES = (INGRESS_RULE_TYPE, "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule")


def check_inputs(provider_version: int, type: str, inputs: Any, default_tags: Mapping[str, str]) -> Any:
    """Returns the inputs as the provider returns them to the engine: where it adds default tags depends on its version."""
    merged = {**default_tags, **inputs.get("tags", {})}
    if provider_version == 6:
        return {**inputs, "tags": merged}
    return inputs if type in FRAMEWORK_TYPES else {**inputs, "tagsAll": merged}


@pytest.mark.parametrize("provider_version", [6, 7])
@pytest.mark.parametrize("stack", ["dev", "prod", "sandbox"])
def test_program_violates_no_rule(stack: str, provider_version: int) -> None:
    config = yaml.safe_load((PROGRAM.parent / f"Pulumi.{stack}.yaml").read_text())["config"]
    settings = {key.partition(":")[2]: value for key, value in config.items() if "ant-media-cluster:" in key}
    acme = {"email": "operator@ant-media.test", **settings.pop("acme", {})}
    program = run(srt=True, acme=acme, **settings)
    default_tags = {**TAGS, **config["aws:defaultTags"]["tags"]}
    provider = {"defaultTags": json.dumps({"tags": default_tags})}
    resources: list[Resource] = []
    for resource in program.resources:
        inputs = without_secrets(resource.inputs)
        if is_taggable(resource.typ):
            inputs = check_inputs(provider_version, resource.typ, inputs, default_tags)
        # Pulumi's mocks form an id from the resource's name: NAME-id.
        dependencies = {key: [value[:-3]] for key, value in inputs.items() if str(value).endswith("-id")}
        protect = (resource.typ, resource.name) in program.protected
        resources.append(Resource(resource.typ, resource.name, inputs, protect, dependencies, provider))
    assert find_violations(resources, read_config(stack)) == []
