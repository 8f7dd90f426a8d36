"""Every accepted value works: the settings refuse what AWS, Linux or HAProxy cannot hold."""

import json
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings

from cluster.haproxy_config import calculate_connection_limits
from cluster.plan import plan_cluster, plan_haproxy
from cluster.settings.model import NAMESPACE, SECRETS, Settings
from cluster.settings.reader import SettingsError, read_settings
from cluster.settings.stack_checks import find_stack_problems
from tests.unit.program import SECRETS as SECRET_VALUES
from tests.unit.program import Run, revealed, run
from tests.valid_settings import (
    LONGEST_HOST_NAME,
    LONGEST_NAMES,
    LONGEST_STACK_NAME,
    MOST_APPLICATIONS,
    MOST_EDGES,
    MOST_NAMES,
    MOST_ORIGINS,
    ZONE,
    host_name,
    valid_settings,
)

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
CHALLENGE = "_acme-challenge."
LONGEST_STACK = "s" * LONGEST_STACK_NAME
ZONES = tuple(f"eu-west-1{letter}" for letter in "abcdef")


def read(raw: dict[str, Any]) -> Settings:
    return read_settings(SECRET_VALUES | raw, SECRETS, NOW)


def read_problems(**changes: object) -> str:
    valid = {
        "domain": "live.ant-media.test",
        "adminCidrs": '["203.0.113.20/32"]',
        "acme": {"email": "o@ant-media.test"},
    }
    with pytest.raises(SettingsError) as error:
        read(valid | changes)
    return str(error.value).replace(f"{NAMESPACE}:", "")


def acme(**changes: object) -> dict[str, object]:
    return {"email": "operator@ant-media.test", **changes}


# Settings


@given(valid_settings())
def test_every_machine_has_its_own_address_and_server_lines_in_haproxy_cfg(raw: dict[str, str]) -> None:
    valid = read(raw)
    plan = plan_cluster(f"ant-media-cluster-{LONGEST_STACK}", valid)
    machines = [plan.addresses.load_balancer, plan.addresses.database, *plan.addresses.origins]
    addresses = [IPv4Address(machine.address) for machine in [*machines, *plan.addresses.edges]]
    assert len(set(addresses)) == len(addresses) == 2 + valid.origins.count + valid.edges.count
    assert len(plan_haproxy(valid, plan.addresses, 512).applications) == len(valid.applications)


def test_the_largest_cluster_has_file_descriptors_for_its_health_checks() -> None:
    for memory_mib in (512, 4096, 4 * 1024 * 1024):
        limits = calculate_connection_limits(memory_mib)
        # HAProxy needs one for each checked server, and some 60 and 2 for each thread, at most 64.
        assert 2 * limits.maxconn + MOST_ORIGINS + MOST_EDGES + 60 + 2 * 64 < limits.ulimit_n


def test_certificate_for_the_longest_names_fits_haproxys_runtime_api() -> None:
    length = LONGEST_NAMES // (MOST_NAMES + 1)
    names = [host_name(f"name{n}", length) for n in range(MOST_NAMES + 1)]
    # The largest certificate of a public CA: an RSA key and signature, and what a CA adds beside the names.
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ZONE)])
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2"), b"x" * 700), False
        )
        .sign(key, SHA256())
    )
    chain_of_two, private_key = 2 * 2000, 1704
    pem = len(certificate.public_bytes(Encoding.PEM)) + chain_of_two + private_key
    # The command's words and the line that ends it are in the same 16 KiB.
    assert pem < 16_384 - 500


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"applications": [f"app{n}" for n in range(MOST_APPLICATIONS + 1)]},
            "the list has 51 items: give at most 50",
        ),
        (
            {"acme": acme(names=[host_name(f"name{n}", 100) for n in range(50)])},
            "the domain and these names have 5019 characters, but a certificate can have 5000: "
            "give fewer or shorter names",
        ),
        (
            {"acme": acme(names=["*." + host_name("x", LONGEST_HOST_NAME)], challenge="dns-01")},
            "the wildcard has more than 253 characters: give a shorter name",
        ),
        (
            {
                "acme": acme(names=[host_name("x", 238)], challenge="dns-01"),
                "route53Zone": ZONE,
            },
            f"the name of the challenge record {CHALLENGE}{host_name('x', 238)} has more than 253 characters: "
            "give a shorter name, or use http-01",
        ),
        (
            {"domain": host_name("x", 238), "acme": acme(challenge="dns-01"), "route53Zone": ZONE},
            f'acme.challenge is "dns-01": the name of the challenge record {CHALLENGE}{host_name("x", 238)} has',
        ),
    ],
    ids=["applications", "names", "wildcard", "challenge record", "challenge record of the domain"],
)
def test_settings_beyond_a_limit_are_refused_with_key_value_and_remedy(
    changes: dict[str, object], problem: str
) -> None:
    (key,) = changes.keys() - {"route53Zone", "domain"}
    (line,) = read_problems(**changes).splitlines()
    assert line.startswith(key)
    assert " is " in line
    assert problem in line


def test_too_many_ca_certificates_are_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority")])
    authority = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=90))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
        .public_bytes(Encoding.PEM)
        .decode()
    )
    count = 100_000 // len(authority)
    valid = {"domain": "live.ant-media.test", "adminCidrs": '["203.0.113.20/32"]'}
    assert read(valid | {"acme": acme(root=authority * count)})
    assert read_problems(acme=acme(root=authority * (count + 1))) == (
        f"acme.root is not valid: the CA certificates have {len(authority) * (count + 1)} bytes, but the endpoint check "
        "accepts 100000: give only those of the ACME server"
    )


# Default tags


def tag_problems(tags: dict[str, str]) -> list[str]:
    own = {"project": "ant-media-cluster", "stack": "dev", "owner": "media-team"}
    return find_stack_problems("ant-media-cluster", "dev", {"tags": own | tags})


def test_as_many_and_as_long_tags_as_aws_allows() -> None:
    assert tag_problems({f"{n:02}".ljust(128, "k"): "v" * 256 for n in range(46)}) == []
    assert tag_problems({f"tag{n}": "v" for n in range(47)}) == [
        "aws:defaultTags.tags has 50 tags, but AWS allows 49 beside Name: remove some"
    ]


@pytest.mark.parametrize("name", ["k" * 129, "aws:created", "AWS:created", "R&D", ""])
def test_tag_names_that_aws_does_not_allow_are_refused(name: str) -> None:
    (problem,) = tag_problems({name: "v"})
    assert problem.startswith(f"aws:defaultTags.tags.{name} has a name that AWS does not allow: give at most")


def test_tags_that_differ_only_in_case_are_refused() -> None:
    rest = "differs from another tag only in upper and lower case, which AWS does not allow: remove one"
    assert tag_problems({"Owner": "v"}) == [
        f"aws:defaultTags.tags.owner {rest}",
        f"aws:defaultTags.tags.Owner {rest}",
    ]
    # The program adds Name.
    assert tag_problems({"name": "v"}) == [f"aws:defaultTags.tags.name {rest}"]
    assert tag_problems({"Name": "v"}) == []


def test_longest_stack_name_is_accepted_and_a_longer_one_refused() -> None:
    tags = {"project": "ant-media-cluster", "owner": "media-team"}
    assert (
        find_stack_problems("ant-media-cluster", LONGEST_STACK, {"tags": {**tags, "stack": LONGEST_STACK}})
        == []
    )
    longer = f"{LONGEST_STACK}s"
    (problem,) = find_stack_problems("ant-media-cluster", longer, {"tags": {**tags, "stack": longer}})
    assert f"The stack name {longer} is too long" in problem


# The program

# Linux allows 128 KiB for one argument and for one environment variable.
LONGEST_ARGUMENT = 128 * 1024
LIMITS: dict[str, dict[str, int]] = {
    "aws:iam/role:Role": {"name": 64},
    "aws:iam/rolePolicy:RolePolicy": {"name": 128, "policy": 10_240},
    "aws:iam/instanceProfile:InstanceProfile": {"name": 128},
    "aws:secretsmanager/secret:Secret": {"name": 512, "description": 2048},
    # The provider adds 26 characters to the prefix. It accepts 100, and AWS 255 for both.
    "aws:ec2/securityGroup:SecurityGroup": {"namePrefix": 100, "description": 255},
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": {"description": 255},
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": {"description": 255},
    "aws:route53/record:Record": {"name": 255},
    "aws:ec2/instance:Instance": {"userData": 16_384},
    "command:remote:Command": {"create": LONGEST_ARGUMENT},
    "command:local:Command": {"create": LONGEST_ARGUMENT},
}
MOST_RULES = 60
"""AWS's default quota of ingress rules, and of egress rules, of a security group."""


def text_of(value: Any) -> str:
    text = revealed(value) if isinstance(value, dict) else value
    return text if isinstance(text, str) else json.dumps(text)


@settings(max_examples=8)
@given(valid_settings(most_nodes=(3, 5)))
def test_names_texts_and_rules_of_the_program_fit_the_limits_of_aws(raw: dict[str, str]) -> None:
    program = run(Run(zones=ZONES), LONGEST_STACK, **raw)
    rules: dict[tuple[str, str], int] = {}
    for resource in program.resources:
        for key, limit in LIMITS.get(resource.typ, {}).items():
            if key in resource.inputs:
                length = len(text_of(resource.inputs[key]).encode())
                assert 0 < length <= limit, (resource.name, key, length)
        name_tag = resource.inputs.get("tags", {}).get("Name", "")
        assert len(name_tag) <= 256
        for variable in resource.inputs.get("environment", {}).values():
            assert len(text_of(variable).encode()) < LONGEST_ARGUMENT - 100
        if resource.typ.startswith("aws:vpc/securityGroup"):
            group = (resource.typ, resource.inputs["securityGroupId"])
            rules[group] = rules.get(group, 0) + 1
    assert rules
    for (typ, group), count in rules.items():
        assert count <= MOST_RULES, (
            f"{group} gets {count} rules of the type {typ}, but AWS allows {MOST_RULES}: lower the limit of adminCidrs or"
            " publisherCidrs in cluster/settings/model.py, Pulumi.yaml and tests/valid_settings.py"
        )
    # Each type with a limit is in the program.
    assert {resource.typ for resource in program.resources} >= LIMITS.keys()
