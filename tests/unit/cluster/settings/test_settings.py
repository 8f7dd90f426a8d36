import json
import subprocess
from datetime import UTC, datetime
from ipaddress import ip_network
from itertools import combinations
from pathlib import Path
from typing import Any

import pulumi
import pulumi.runtime
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from cluster.host_keys import derive_host_key
from cluster.settings.model import NAMESPACE, SECRETS, SET_BY_HAND, Settings
from cluster.settings.network import ExistingSubnets, Subnet
from cluster.settings.reader import SettingsError, read_settings
from cluster.settings.stack_checks import stack_problems
from components.stack_settings import stack_settings
from tests.project import PROJECT

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SECRET_KEYS = (*SECRETS, "tls")  # Pulumi knows of an object only that something in it is encrypted.
SCHEMA: dict[str, Any] = yaml.safe_load((PROJECT / "Pulumi.yaml").read_text())["config"]
STACKS: dict[str, dict[str, Any]] = {
    name: yaml.safe_load((PROJECT / f"Pulumi.{name}.yaml").read_text())["config"]
    for name in ("dev", "prod", "sandbox")
}

REQUIRED: dict[str, object] = {
    "domain": "live.ant-media.test",
    "adminCidrs": '["203.0.113.20/32"]',
    "acme": '{"email":"operator@ant-media.test"}',
    "sshPrivateKey": derive_host_key("ab" * 32, "operator").private_openssh.rstrip("\n"),
    "sshHostKeySeed": "cd" * 32,
    "databasePassword": "databasePassword-0",
    "statisticsPassword": "statistics!Passw0rd",
    "panelPassword": "panel!Passw0rd",
}


def read(**changes: object) -> Settings:
    return read_settings(REQUIRED | changes, SECRET_KEYS, NOW)


def complaint(**changes: object) -> str:
    with pytest.raises(SettingsError) as refusal:
        read(**changes)
    return str(refusal.value).replace(f"{NAMESPACE}:", "")


def test_what_a_person_writes_becomes_what_the_program_reads():
    settings = read(
        domain="Live.Ant-Media.test",
        route53Zone="ant-media.test.",
        publisherCidrs='["10.0.0.0/8", "203.0.113.66/32"]',
        srt="true",
        origins='{"count": 3}',
        network='{"subnets": [{"id": "subnet-0123456789abcdef0", "cidr": "10.1.0.0/24"}]}',
        acme='{"email": "operator@ant-media.test", "directory": "staging"}',
        mediaImage="ubuntu",
        licenseKey="AMS-123",
    )
    assert settings.domain == "live.ant-media.test"
    assert settings.route53_zone == "ant-media.test"
    assert settings.publisher_cidrs == ("10.0.0.0/8", "203.0.113.66/32")
    assert settings.srt is True
    assert (settings.origins.count, settings.origins.instance_type) == (3, "c5.xlarge")
    assert settings.network == ExistingSubnets(subnets=(Subnet("subnet-0123456789abcdef0", "10.1.0.0/24"),))
    assert settings.acme
    assert settings.acme.directory == "https://acme-staging-v02.api.letsencrypt.org/directory"
    assert settings.panel_email == "admin@live.ant-media.test"
    assert settings.license_key is not None
    assert settings.license_key.get_secret_value() == "AMS-123"
    assert settings.ssh_private_key.get_secret_value().endswith("-----END OPENSSH PRIVATE KEY-----\n")


def test_the_schemas_defaults_are_the_programs():
    defaults = {key: entry["default"] for key, entry in SCHEMA.items()}
    as_the_engine_hands_them = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in defaults.items()
    }
    assert read_settings(as_the_engine_hands_them | REQUIRED, SECRETS, NOW) == read()


def test_the_schema_describes_every_setting_and_stops_none_before_the_program_sees_it():
    with pytest.raises(SettingsError) as refusal:
        read(nonsense=1)
    known = str(refusal.value).partition("there are ")[2].split(", ")
    assert set(SCHEMA) == set(known)
    for entry in SCHEMA.values():
        assert entry["description"]
        assert "default" in entry  # without one the engine refuses the stack by itself
        assert "type" not in entry  # with one the engine stops at the first wrong value
    assert {key for key, entry in SCHEMA.items() if entry.get("secret")} == set(SECRETS)


def test_the_certificate_is_for_the_domain_and_the_further_names():
    settings = read(
        acme=ACME | {"names": ["Play.ant-media.test", "play.other.test"], "keyType": "rsa"},
        route53Zone="ant-media.test",
        hstsMaxAge="31536000",
    )
    assert settings.acme
    assert settings.acme.key_type == "rsa"
    assert settings.certificate_names == ("live.ant-media.test", "play.ant-media.test", "play.other.test")
    assert settings.names_in_zone == ("live.ant-media.test", "play.ant-media.test")
    assert settings.challenge_records == ()
    assert settings.hsts_max_age == 31536000
    assert read(acme=ACME | {"names": ["play.ant-media.test"]}).names_in_zone == ()
    assert read(acme=ACME | {"names": [f"n{n}.test.net" for n in range(99)]}).certificate_names[99:] == (
        "n98.test.net",
    )
    with pytest.raises(SettingsError, match="these are 100: give at most 99"):
        read(acme=ACME | {"names": [f"n{n}.test.net" for n in range(100)]})


def test_a_wildcard_stands_for_the_names_that_it_covers():
    settings = read(
        acme=ACME
        | {
            "challenge": "dns-01",
            "names": ["*.ant-media.test", "play.ant-media.test", "ant-media.test", "*.live.ant-media.test"],
        },
        route53Zone="ant-media.test",
    )
    assert settings.certificate_names == ("*.ant-media.test", "ant-media.test", "*.live.ant-media.test")
    assert settings.names_in_zone == ("live.ant-media.test", "play.ant-media.test", "ant-media.test")
    assert settings.challenge_records == (
        "_acme-challenge.ant-media.test",
        "_acme-challenge.live.ant-media.test",
    )


@pytest.mark.parametrize(
    ("origins", "edges", "url", "needed"),
    [(1, 0, "", False), (1, 1, "", True), (2, 0, "", True), (2, 2, "rediss://cache.test:6379", False)],
)
def test_a_database_machine_is_needed_by_several_nodes_without_a_database_of_the_users(
    origins: int, edges: int, url: str, needed: bool
):
    assert read(origins={"count": origins}, edges={"count": edges}, databaseUrl=url).needs_database is needed


def test_an_empty_stack_is_told_all_that_it_needs():
    with pytest.raises(SettingsError) as refusal:
        read_settings({}, (), NOW)
    assert str(refusal.value).replace(f"{NAMESPACE}:", "") == "\n".join(
        [
            "acme.email is not set: pulumi config set --path acme.email you@your-domain.org",
            "adminCidrs is not set: "
            "pulumi config set --path 'adminCidrs[0]' \"$(curl -s https://checkip.amazonaws.com)/32\"",
            "databasePassword is not set: make stack STACK=NAME generates it",
            "domain is not set: pulumi config set domain live.your-domain.org",
            "panelPassword is not set: make stack STACK=NAME generates it",
            "sshHostKeySeed is not set: make stack STACK=NAME generates it",
            "sshPrivateKey is not set: make stack STACK=NAME generates it",
            "statisticsPassword is not set: make stack STACK=NAME generates it",
        ]
    )


def test_everything_wrong_is_told_at_once():
    raw: dict[str, object] = REQUIRED | {
        "domain": "https://live.ant-media.test:443",
        "adminCidrs": '["203.0.113.20/32", "0.0.0.0/0"]',
        "route53Zone": "*.ant-media.test",
        "srt": "yes",
        "origns": '{"count": 1}',
        "origins": '{"count": 0, "instancetype": "c5.large"}',
        "network": '{"cidr": "10.0.0.0/8", "zone": 2}',
        "databaseUrl": "mysql://root:hunter2@db.test/ams",
        "panelPassword": "hunter2",
    }
    with pytest.raises(SettingsError) as refusal:
        read_settings(raw, {*SECRETS} - {"panelPassword"}, NOW)
    assert str(refusal.value) == "\n".join(
        [
            'ant-media-cluster:adminCidrs[1] is "0.0.0.0/0": SSH, the web panel and the statistics are never opened '
            "that wide: give your own addresses, /8 or longer",
            "ant-media-cluster:databaseUrl will not do: give a URL with a host: "
            "mongodb://…, mongodb+srv://…, redis://… or rediss://…",
            'ant-media-cluster:domain is "https://live.ant-media.test:443": give a full host name such as '
            "live.your-domain.org, without scheme, port, path or wildcard",
            'ant-media-cluster:network.cidr is "10.0.0.0/8": give a prefix from /16 to /25',
            "ant-media-cluster:network.zone is not a setting: did you mean zones?",
            "ant-media-cluster:origins.count is 0: give a whole number from 1 to 100",
            "ant-media-cluster:origins.instancetype is not a setting: did you mean instanceType?",
            "ant-media-cluster:origns is not a setting: did you mean origins?",
            "ant-media-cluster:panelPassword is in plain text: encrypt it with pulumi config set --secret "
            "ant-media-cluster:panelPassword, and if anybody else may have read it, with a new value",
            "ant-media-cluster:panelPassword will not do: give 12 to 128 printable ASCII characters "
            "without spaces, quotes, \\, # or $",
            'ant-media-cluster:route53Zone is "*.ant-media.test": give a full host name such as '
            "live.your-domain.org, without scheme, port, path or wildcard",
            'ant-media-cluster:srt is "yes": give true or false',
        ]
    )


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "*.ant-media.test",
        "live.ant-media.test:443",
        "live..test",
        "-a.test",
        "a_b.test",
        "10.0.0.1",
        "a b.test",
    ],
)
def test_a_domain_that_is_no_host_name_is_refused(name: str):
    assert complaint(domain=name) == (
        f'domain is "{name}": '
        "give a full host name such as live.your-domain.org, without scheme, port, path or wildcard"
    )


ACME = {"email": "operator@ant-media.test"}
ECDSA_KEY = (
    generate_private_key(SECP256R1())
    .private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    .decode()
)
SUBNET_A = {"id": "subnet-aaaaaaaa", "cidr": "10.1.0.0/24"}
OVERLAPPING = [SUBNET_A, {"id": "subnet-bbbbbbbb", "cidr": "10.1.0.128/25"}]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"domain": "live.example.com"},
            'domain is "live.example.com": this name stands for yours in examples: give a name that you own',
        ),
        (
            {"adminCidrs": "203.0.113.20/32"},
            'adminCidrs is "203.0.113.20/32": give a list, each element by pulumi config set --path '
            "'adminCidrs[0]' VALUE",
        ),
        (
            {"adminCidrs": "[]"},
            "adminCidrs is []: give at least one",
        ),
        (
            {"adminCidrs": '["198.51.100.7/32"]'},
            'adminCidrs[0] is "198.51.100.7/32": these addresses stand for yours in examples: give your own',
        ),
        (
            {"publisherCidrs": '["10.1.2.3/8"]'},
            'publisherCidrs[0] is "10.1.2.3/8": bits are set behind the prefix: give 10.0.0.0/8, or '
            "10.1.2.3/32",
        ),
        (
            {"publisherCidrs": '["::/0"]'},
            'publisherCidrs[0] is "::/0": give an IPv4 network such as 10.0.0.0/16, or one address as /32',
        ),
        (
            {"publisherCidrs": '["10.0.0.0/8", "10.0.0.0/8"]'},
            'publisherCidrs is ["10.0.0.0/8", "10.0.0.0/8"]: give each only once',
        ),
        (
            {"route53Zone": "media.test"},
            'route53Zone is "media.test": live.ant-media.test is not in this zone: give the zone '
            "that holds it",
        ),
        (
            {"applications": '["LiveApp", "rest"]'},
            'applications[1] is "rest": that path belongs to Ant Media Server\'s root application or '
            "to HAProxy: give another name",
        ),
        (
            {"applications": '["Live/App"]'},
            'applications[0] is "Live/App": give an application\'s name: letters, digits, - and _',
        ),
        (
            {"origins": "3"},
            "origins is 3: give an object, each of its keys by pulumi config set --path origins.NAME VALUE",
        ),
        (
            {"origins": '{"count": "3"}'},
            'origins.count is "3": give a whole number',
        ),
        (
            {"edges": '{"count": true}'},
            "edges.count is true: give a whole number",
        ),
        (
            {"edges": '{"count": -1}'},
            "edges.count is -1: give a whole number from 0 to 1000",
        ),
        (
            {"edges": '{"instanceType": "c5"}'},
            'edges.instanceType is "c5": give an EC2 instance type such as c5.xlarge',
        ),
        (
            {"database": '{"volumeSize": 4}'},
            "database.volumeSize is 4: give a whole number from 8 to 16384",
        ),
        (
            {"network": '{"cidr": "8.8.0.0/16"}'},
            'network.cidr is "8.8.0.0/16": Ant Media Server trusts its load balancer on private '
            "addresses only: give a network in 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16",
        ),
        (
            {"network": '{"zones": 9}'},
            "network.zones is 9: give a whole number from 1 to 6",
        ),
        (
            {"network": {"zones": 2, "subnets": []}},
            'network is {"zones": 2, "subnets": []}: keep cidr and zones for a VPC of the cluster\'s '
            "own, or subnets for existing ones, not both",
        ),
        (
            {"network": {"subnets": [{"id": "vpc-1", "cidr": "10.1.0.0/29"}]}},
            'network.subnets[0].cidr is "10.1.0.0/29": give a prefix from /16 to /28\n'
            'network.subnets[0].id is "vpc-1": give the id of a subnet (subnet-…)',
        ),
        (
            {"network": {"subnets": OVERLAPPING}},
            'network.subnets is [{"id": "subnet-aaaaaaaa", "cidr": "10.1.0.0/24"}, {"id": '
            '"subnet-bbbbbbbb", "cidr": "10.1.0.128/25…: subnet-aaaaaaaa (10.1.0.0/24) and '
            "subnet-bbbbbbbb (10.1.0.128/25) overlap: give the CIDRs that AWS shows for them",
        ),
        (
            {"network": {"cidr": "10.0.0.0/25"}, "edges": {"count": 40}},
            'network is {"cidr": "10.0.0.0/25"}: subnet 10.0.0.0/28 has addresses for 7 nodes, but the cluster has '
            "2 origins and 40 edges: give a larger network or fewer nodes",
        ),
        (
            {"mediaImage": "ubunto"},
            'mediaImage is "ubunto": give marketplace, ubuntu or the id of an image (ami-…)',
        ),
        (
            {"mediaImage": "ubuntu"},
            'mediaImage is "ubuntu": Ant Media\'s installer needs a licence: pulumi config set '
            "--secret licenseKey, or give marketplace or ami-…",
        ),
        (
            {"linuxImage": "ubuntu"},
            'linuxImage is "ubuntu": give debian-13 or the id of an image (ami-…)',
        ),
        (
            {"acme": {"email": "a@example.org", "directory": "http://acme.test"}},
            'acme.directory is "http://acme.test": give production, staging or the https URL of an '
            "ACME directory\n"
            'acme.email is "a@example.org": give an e-mail address in a domain of yours',
        ),
        (
            {"acme": ACME | {"keyType": "ed25519", "challenge": "tls-alpn-01"}},
            "acme.challenge is \"tls-alpn-01\": give 'http-01' or 'dns-01'\n"
            "acme.keyType is \"ed25519\": give 'ecdsa' or 'rsa'",
        ),
        (
            {"acme": ACME | {"names": "play.ant-media.test"}},
            'acme.names is "play.ant-media.test": give a list, each element by pulumi config set --path '
            "'acme.names[0]' VALUE",
        ),
        (
            {
                "acme": ACME
                | {"names": ["play.ant-media.test", "https://a.test", "*.*.a.test", "a.example.org"]}
            },
            'acme.names[1] is "https://a.test": give a full host name such as live.your-domain.org, '
            "without scheme, port, path or wildcard\n"
            'acme.names[2] is "*.*.a.test": give a full host name such as live.your-domain.org, '
            "without scheme, port, path or wildcard\n"
            'acme.names[3] is "a.example.org": this name stands for yours in examples: give a name that you own',
        ),
        (
            {"acme": ACME | {"names": ["a.test.net", "A.test.net"]}},
            'acme.names is ["a.test.net", "A.test.net"]: give each only once',
        ),
        (
            {"acme": ACME | {"names": ["a.test.net", "Live.Ant-Media.test"]}},
            'acme.names[1] is "live.ant-media.test": this is the domain, which is certified anyway: leave it out',
        ),
        (
            {"acme": ACME | {"names": ["a.test.net", "*.live.ant-media.test"]}},
            'acme.names[1] is "*.live.ant-media.test": a wildcard is certified by dns-01 only: '
            "set acme.challenge to dns-01, or name each host",
        ),
        (
            {"acme": ACME | {"challenge": "dns-01"}},
            'acme.challenge is "dns-01": it is answered in Route 53: pulumi config set route53Zone ZONE, '
            "or keep http-01",
        ),
        (
            {
                "acme": ACME
                | {"challenge": "dns-01", "names": ["*.ant-media.test", "*.other.test", "other.test"]},
                "route53Zone": "ant-media.test",
            },
            'acme.names[1] is "*.other.test": dns-01 can be answered for names in the zone ant-media.test only\n'
            'acme.names[2] is "other.test": dns-01 can be answered for names in the zone ant-media.test only',
        ),
        (
            {"acme": ACME | {"root": "ca.pem"}},
            'acme.root is "ca.pem": no certificate is in it: give PEM text (-----BEGIN CERTIFICATE-----…), '
            "not a file's name",
        ),
        (
            {"tls": {"certificate": "", "privateKey": ""}},
            "acme and tls are both set, but the certificate comes from one of them: "
            "pulumi config rm acme, or pulumi config rm tls\n"
            "tls.certificate will not do: no certificate is in it: give PEM text (-----BEGIN CERTIFICATE-----…), "
            "not a file's name\n"
            "tls.privateKey will not do: no private key can be read in it: give PEM text "
            "(-----BEGIN PRIVATE KEY-----…), not a file's name",
        ),
        (
            {"acme": "", "tls": "{}"},
            "tls.certificate is not set: pulumi config set --path tls.certificate < fullchain.pem\n"
            "tls.privateKey is not set: pulumi config set --secret --path tls.privateKey < privkey.pem",
        ),
        (
            {"acme": "", "tls": "-----BEGIN PRIVATE KEY-----"},
            "tls will not do: give an object, each of its keys by pulumi config set --path tls.NAME VALUE",
        ),
        (
            {"hstsMaxAge": "1 year"},
            'hstsMaxAge is "1 year": give a whole number',
        ),
        (
            {"hstsMaxAge": "63072001"},
            'hstsMaxAge is "63072001": give a whole number from 0 to 63072000',
        ),
        (
            {"statisticsUser": "a:b"},
            'statisticsUser is "a:b": give letters, digits, . _ or -',
        ),
        (
            {"sshHostKeySeed": "abcd"},
            "sshHostKeySeed will not do: give 64 hexadecimal digits",
        ),
        (
            {"databasePassword": "p@ss/word!p@ss/word!"},
            "databasePassword will not do: give 16 to 128 letters, digits, - . _ or ~ (it becomes "
            "part of a URL)",
        ),
        (
            {"databaseUrl": "redis://:a b@db.test"},
            "databaseUrl will not do: percent-encode spaces, quotes, $ and every other special "
            "character of the URL",
        ),
        (
            {"databaseUrl": "mongodb://"},
            "databaseUrl will not do: give a URL with a host: mongodb://…, mongodb+srv://…, redis://…"
            " or rediss://…",
        ),
        (
            {"sshPrivateKey": "ssh-ed25519 AAAA"},
            "sshPrivateKey will not do: give an OpenSSH ed25519 private key without passphrase",
        ),
        (
            {"sshPrivateKey": ECDSA_KEY},
            "sshPrivateKey will not do: give an OpenSSH ed25519 private key without passphrase",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else "+".join(value),
)
def test_a_wrong_value_is_told_with_its_key_and_what_would_do(changes: dict[str, object], text: str):
    assert complaint(**changes) == text


def test_a_key_with_a_passphrase_is_refused(tmp_path: Path):
    file = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", file], timeout=20, check=True)
    assert complaint(sshPrivateKey=file.read_text()) == (
        "sshPrivateKey will not do: give an OpenSSH ed25519 private key without passphrase"
    )


def test_a_private_key_is_refused_in_plain_text_and_never_shown():
    tls = json.dumps({"certificate": ECDSA_KEY, "privateKey": ECDSA_KEY})
    with pytest.raises(SettingsError) as refusal:
        read_settings(REQUIRED | {"tls": tls, "acme": json.dumps(ACME | {"root": ECDSA_KEY})}, SECRETS, NOW)
    assert (
        "ant-media-cluster:tls.privateKey is in plain text: encrypt it with pulumi config set --secret --path "
        "ant-media-cluster:tls.privateKey < privkey.pem, and if anybody else may have read it, "
        "with a new key and its certificate"
    ) in str(refusal.value).splitlines()
    said = str(refusal.value) + complaint(acme=json.dumps(ACME | {"root": ECDSA_KEY}))
    assert ECDSA_KEY.splitlines()[1][:20] not in said
    for damaged in ("zq7", ["zq7"]):
        with pytest.raises(SettingsError) as refusal:
            read_settings(REQUIRED | {"tls": {"certificate": "", "privateKey": damaged}}, SECRETS, NOW)
        assert "zq7" not in str(refusal.value)
    # Pulumi tells of an object only that something in it is a secret.
    assert "plain text" not in complaint(tls=tls)


secret_texts = st.text(max_size=40).map(lambda text: f"zq7{text}")


@given(st.sampled_from(SECRETS), secret_texts, st.booleans())
def test_no_error_shows_a_secret(key: str, secret: str, encrypted: bool):
    try:
        said = repr(
            read_settings(REQUIRED | {key: secret}, SECRETS if encrypted else {*SECRETS} - {key}, NOW)
        )
    except SettingsError as error:
        said = str(error)
    assert "zq7" not in said


def test_a_url_that_the_parser_quotes_in_its_error_is_not_shown():
    assert "zq7" not in complaint(databaseUrl="mongodb://zq7\u2100@db.test")


def test_neither_an_encrypted_nor_an_unknown_value_is_shown():
    with pytest.raises(SettingsError) as refusal:
        read_settings(REQUIRED | {"acme": {"email": "zq7"}, "pannelPassword": "zq7"}, {*SECRETS, "acme"}, NOW)
    assert "zq7" not in str(refusal.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["count", "cidr", "zones", "subnets", "id", "email", "names", "root", "privateKey", "x"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*SCHEMA, "x"]), json_values, max_size=8))
def test_no_configuration_ends_in_anything_but_settings_or_a_settings_error(raw: dict[str, object]):
    for written in (raw, {key: json.dumps(value) for key, value in raw.items()}):
        with pytest.raises(SettingsError):
            read_settings(written, SECRETS, NOW)


class NoCloud(pulumi.runtime.Mocks):
    def new_resource(self, args: pulumi.runtime.MockResourceArgs):
        raise AssertionError(f"{args.typ} was created")

    def call(self, args: pulumi.runtime.MockCallArgs):
        raise AssertionError(f"{args.token} was called")


TAGS = {"project": NAMESPACE, "stack": "dev", "owner": "media-team"}


def configure(tags: object = TAGS, **changes: object) -> None:
    pulumi.runtime.set_mocks(NoCloud(), project=NAMESPACE, stack="dev")
    config = {f"{NAMESPACE}:{key}": str(value) for key, value in (REQUIRED | changes).items()}
    pulumi.runtime.set_all_config(
        config | {"aws:region": "eu-west-1", "aws:defaultTags": json.dumps({"tags": tags})},
        [f"{NAMESPACE}:{key}" for key in SECRETS],
    )


def test_a_stacks_configuration_becomes_its_settings():
    configure()
    assert stack_settings() == read()


def test_a_stack_with_problems_is_told_before_anything_is_touched():
    configure(TAGS | {"stack": "prod"}, srt="maybe", domian="live.ant-media.test")
    with pytest.raises(pulumi.RunError) as refusal:
        stack_settings()
    assert str(refusal.value) == "\n".join(
        [
            "Nothing was touched. What stack dev needs changed in its configuration:",
            "  ant-media-cluster:domian is not a setting: did you mean domain?",
            '  ant-media-cluster:srt is "maybe": give true or false',
            '  aws:defaultTags.tags.stack is "prod": pulumi config set --path aws:defaultTags.tags.stack dev',
        ]
    )


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_an_example_stack_needs_nothing_but_what_only_its_user_knows(name: str):
    stack = STACKS[name]
    raw = {
        key.removeprefix(f"{NAMESPACE}:"): value for key, value in stack.items() if not key.startswith("aws:")
    }
    secrets = {key: REQUIRED[key] for key in SECRETS if key in REQUIRED}
    with pytest.raises(SettingsError) as refusal:
        read_settings(raw | secrets, SECRETS, NOW)
    said = str(refusal.value).splitlines() + stack_problems(NAMESPACE, name, stack["aws:defaultTags"])
    assert [line.split(" is not set: ") for line in said] == sorted(
        [key if ":" in key else f"{NAMESPACE}:{key}", command] for key, command in SET_BY_HAND.items()
    )


@pytest.mark.parametrize("name", STACKS)
def test_a_stacks_file_says_only_what_differs_from_the_defaults(name: str):
    for key, value in STACKS[name].items():
        default = SCHEMA.get(key.removeprefix(f"{NAMESPACE}:"), {}).get("default")
        assert value != default, key
        if isinstance(value, dict) and isinstance(default, dict):
            assert not value.items() & default.items(), key


def test_two_stacks_in_one_account_have_no_address_and_no_tag_in_common():
    networks = [
        ip_network({**SCHEMA["network"]["default"], **stack.get(f"{NAMESPACE}:network", {})}["cidr"])
        for stack in STACKS.values()
    ]
    assert not any(one.overlaps(other) for one, other in combinations(networks, 2))
    for name, stack in STACKS.items():
        tags = {"owner": "media-team", **stack["aws:defaultTags"]["tags"]}
        assert stack_problems(NAMESPACE, name, {"tags": tags}) == []
