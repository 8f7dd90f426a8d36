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

from cluster.derived_keys import derive_key_pair
from cluster.settings.model import NAMESPACE, REQUIRED_FROM_USER, SECRETS, Settings
from cluster.settings.network import ExistingSubnets, Subnet
from cluster.settings.reader import SettingsError, read_settings
from cluster.settings.stack_checks import find_stack_problems
from components.stack_settings import read_stack_settings
from tests.project import PROJECT

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SECRET_KEYS = (*SECRETS, "tls")  # Pulumi marks an object as secret if any value in it is encrypted.
SCHEMA: dict[str, Any] = yaml.safe_load((PROJECT / "Pulumi.yaml").read_text())["config"]
STACKS: dict[str, dict[str, Any]] = {
    name: yaml.safe_load((PROJECT / f"Pulumi.{name}.yaml").read_text())["config"]
    for name in ("dev", "prod", "sandbox")
}

REQUIRED: dict[str, object] = {
    "domain": "live.ant-media.test",
    "adminCidrs": '["203.0.113.20/32"]',
    "acme": '{"email":"operator@ant-media.test"}',
    "sshPrivateKey": derive_key_pair("ab" * 32, "operator").private_openssh.rstrip("\n"),
    "sshHostKeySeed": "cd" * 32,
    "databasePassword": "databasePassword-0",
    "statisticsPassword": "statistics!Passw0rd",
    "panelPassword": "panel!Passw0rd",
}


def read(**changes: object) -> Settings:
    return read_settings(REQUIRED | changes, SECRET_KEYS, NOW)


def read_error(**changes: object) -> str:
    with pytest.raises(SettingsError) as error:
        read(**changes)
    return str(error.value).replace(f"{NAMESPACE}:", "")


ZIP = {"url": "https://a.org/a.zip?key=1", "sha256": "a" * 64}


def test_settings_are_parsed_and_normalized():
    settings = read(
        domain="Live.Ant-Media.test",
        route53Zone="ant-media.test.",
        publisherCidrs='["10.0.0.0/8", "203.0.113.66/32"]',
        monitoringCidrs='["203.0.113.30/32"]',
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
    assert settings.monitoring_cidrs == ("203.0.113.30/32",)
    assert settings.srt is True
    assert (settings.origins.count, settings.origins.instance_type) == (3, "c5.xlarge")
    assert settings.network == ExistingSubnets(subnets=(Subnet("subnet-0123456789abcdef0", "10.1.0.0/24"),))
    assert settings.acme
    assert settings.acme.directory == "https://acme-staging-v02.api.letsencrypt.org/directory"
    assert settings.panel_email == "admin@live.ant-media.test"
    assert settings.license_key is not None
    assert settings.license_key.get_secret_value() == "AMS-123"
    assert settings.ssh_private_key.get_secret_value().endswith("-----END OPENSSH PRIVATE KEY-----\n")


def test_zip_is_installed_on_ubuntu_without_a_licence_key():
    settings = read(mediaImage="ubuntu", amsZip=json.dumps(ZIP))
    assert settings.ams_zip
    assert (settings.ams_zip.url.get_secret_value(), settings.ams_zip.sha256) == (ZIP["url"], ZIP["sha256"])
    assert ZIP["url"] not in repr(settings)


def test_defaults_of_pulumi_yaml_and_of_the_model_are_equal():
    defaults = {key: entry["default"] for key, entry in SCHEMA.items()}
    as_text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in defaults.items()}
    assert read_settings(as_text | REQUIRED, SECRETS, NOW) == read()


def test_pulumi_yaml_describes_every_setting_and_leaves_validation_to_the_program():
    with pytest.raises(SettingsError) as error:
        read(nonsense=1)
    known = str(error.value).partition("the settings are ")[2].split(", ")
    assert set(SCHEMA) == set(known)
    for entry in SCHEMA.values():
        assert entry["description"]
        assert "default" in entry  # Without a default, Pulumi refuses the stack before the program runs.
        assert "type" not in entry  # With a type, Pulumi reports only the first wrong value.
    assert {key for key, entry in SCHEMA.items() if entry.get("secret")} == set(SECRETS)


def test_certificate_names_are_the_domain_and_acme_names():
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
    with pytest.raises(SettingsError, match="the list has 100 items: give at most 99"):
        read(acme=ACME | {"names": [f"n{n}.test.net" for n in range(100)]})


def test_certificate_names_omit_names_that_a_wildcard_matches():
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
def test_several_nodes_without_a_database_url_need_a_database_machine(
    origins: int, edges: int, url: str, needed: bool
):
    assert read(origins={"count": origins}, edges={"count": edges}, databaseUrl=url).needs_database is needed


def test_an_empty_configuration_lists_every_required_setting():
    with pytest.raises(SettingsError) as error:
        read_settings({}, (), NOW)
    assert str(error.value).replace(f"{NAMESPACE}:", "") == "\n".join(
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


def test_all_problems_are_reported_at_once():
    raw: dict[str, object] = REQUIRED | {
        "domain": "https://live.ant-media.test:443",
        "adminCidrs": '["203.0.113.20/32", "0.0.0.0/0"]',
        "route53Zone": "*.ant-media.test",
        "rtmpsPort": "443",
        "srt": "yes",
        "origns": '{"count": 1}',
        "origins": '{"count": 0, "instancetype": "c5.large"}',
        "network": '{"cidr": "10.0.0.0/8", "zone": 2}',
        "databaseUrl": "mysql://root:hunter2@db.test/ams",
        "panelPassword": "hunter2",
    }
    with pytest.raises(SettingsError) as error:
        read_settings(raw, {*SECRETS} - {"panelPassword"}, NOW)
    assert str(error.value) == "\n".join(
        [
            'ant-media-cluster:adminCidrs[1] is "0.0.0.0/0": too many addresses for access to SSH, the web panel and '
            "the statistics: give your own addresses, with a prefix of /8 or longer",
            "ant-media-cluster:databaseUrl is not valid: give a URL with a host: "
            "mongodb://…, mongodb+srv://…, redis://… or rediss://…",
            'ant-media-cluster:domain is "https://live.ant-media.test:443": give a full host name such as '
            "live.your-domain.org, without scheme, port, path or wildcard",
            'ant-media-cluster:network.cidr is "10.0.0.0/8": give a prefix from /16 to /25',
            "ant-media-cluster:network.zone is not a setting: did you mean zones?",
            "ant-media-cluster:origins.count is 0: give a whole number from 1 to 100",
            "ant-media-cluster:origins.instancetype is not a setting: did you mean instanceType?",
            "ant-media-cluster:origns is not a setting: did you mean origins?",
            "ant-media-cluster:panelPassword is in plain text: encrypt it with pulumi config set --secret "
            "ant-media-cluster:panelPassword, and give a new value if anyone else may have read this one",
            "ant-media-cluster:panelPassword is not valid: give 12 to 128 printable ASCII characters "
            "without spaces, quotes, \\, # or $",
            'ant-media-cluster:route53Zone is "*.ant-media.test": give a full host name such as '
            "live.your-domain.org, without scheme, port, path or wildcard",
            'ant-media-cluster:rtmpsPort is "443": the load balancer uses this port for something else: '
            "give another one, such as 1936",
            'ant-media-cluster:srt is "yes": give true or false',
        ]
    )


@pytest.mark.parametrize("key", ["applicationSettings", "serverSettings"])
def test_malformed_object_is_refused_without_its_secrets(key: str):
    assert read_error(**{key: '{"jwtSecretKey": "hunter2"},'}).startswith(
        f"{key} is not valid: give an object"
    )


@pytest.mark.parametrize("port", [53, 443, 6379, 8888])
def test_rtmps_on_a_port_of_another_service_is_refused(port: int):
    assert read_error(rtmpsPort=str(port)) == (
        f'rtmpsPort is "{port}": the load balancer uses this port for something else: give another one, such as 1936'
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
def test_an_invalid_domain_is_refused(name: str):
    assert read_error(domain=name) == (
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
            'domain is "live.example.com": this is an example name: give a host name in a domain that you own',
        ),
        (
            {"adminCidrs": "203.0.113.20/32"},
            'adminCidrs is "203.0.113.20/32": give a list: set each element with pulumi config set --path '
            "'adminCidrs[0]' VALUE",
        ),
        (
            {"adminCidrs": "[]"},
            "adminCidrs is []: give at least one",
        ),
        (
            {"monitoringCidrs": '["0.0.0.0/0"]'},
            'monitoringCidrs[0] is "0.0.0.0/0": too many addresses for access to the metrics: give the addresses of your '
            "Prometheus servers, with a prefix of /8 or longer",
        ),
        (
            {"monitoringCidrs": '["203.0.113.30/32", "203.0.113.30/32"]'},
            'monitoringCidrs is ["203.0.113.30/32", "203.0.113.30/32"]: an item repeats: give each only once',
        ),
        (
            {"adminCidrs": '["198.51.100.7/32"]'},
            'adminCidrs[0] is "198.51.100.7/32": this is an example network: give your own addresses',
        ),
        (
            {"publisherCidrs": '["10.1.2.3/8"]'},
            'publisherCidrs[0] is "10.1.2.3/8": the address has host bits set: give 10.0.0.0/8 for '
            "the network, or 10.1.2.3/32",
        ),
        (
            {"publisherCidrs": '["::/0"]'},
            'publisherCidrs[0] is "::/0": give an IPv4 network such as 10.0.0.0/16, or one address as /32',
        ),
        (
            {"publisherCidrs": '["10.0.0.0/8", "10.0.0.0/8"]'},
            'publisherCidrs is ["10.0.0.0/8", "10.0.0.0/8"]: an item repeats: give each only once',
        ),
        (
            {"route53Zone": "media.test"},
            'route53Zone is "media.test": live.ant-media.test is not in this zone: give the zone '
            "that contains it",
        ),
        (
            {"applications": '["LiveApp", "rest"]'},
            'applications[1] is "rest": Ant Media Server\'s root application or HAProxy '
            "already uses this path: give another name",
        ),
        (
            {"applications": '["Live/App"]'},
            'applications[0] is "Live/App": give the name of an application: letters, digits, - and _, at most 64',
        ),
        (
            {"origins": "3"},
            "origins is 3: give an object: set each of its keys with pulumi config set --path origins.NAME VALUE",
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
            'network.cidr is "8.8.0.0/16": Ant Media Server trusts a load balancer only on a '
            "private address: give a network in 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16",
        ),
        (
            {"network": '{"zones": 9}'},
            "network.zones is 9: give a whole number from 1 to 6",
        ),
        (
            {"network": {"zones": 2, "subnets": []}},
            'network is {"zones": 2, "subnets": []}: give cidr and zones for a new VPC, '
            "or subnets for existing ones, not both",
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
            'mediaImage is "ubuntu": Ant Media\'s installer needs a licence key: pulumi config set '
            "--secret licenseKey, or give amsZip, marketplace or ami-…",
        ),
        (
            {"amsZip": ZIP},
            'mediaImage is "marketplace": AWS bills this image for the server that it contains, so amsZip needs another one: '
            "give ubuntu or the id of an image (ami-…)",
        ),
        (
            {"mediaImage": "ubuntu", "amsZip": ZIP | {"url": "ftp://a.org/a.zip"}},
            'amsZip.url is "ftp://a.org/a.zip": give the http or https URL of the zip, without spaces, quotes and backslashes',
        ),
        (
            {"mediaImage": "ubuntu", "amsZip": ZIP | {"sha256": "A" * 64}},
            f'amsZip.sha256 is "{"A" * 64}": give what sha256sum prints for the zip: 64 digits 0-9 a-f',
        ),
        (
            {"amsVersion": "3.0.3"},
            "amsVersion is not a setting: mediaImage (the id of an image) or amsZip determines the version, see docs/upgrade.md",
        ),
        (
            {"linuxImage": "ubuntu"},
            'linuxImage is "ubuntu": give debian-13 or the id of an image (ami-…)',
        ),
        (
            {"acme": {"email": "a@example.org", "directory": "http://acme.test"}},
            'acme.directory is "http://acme.test": give production, staging or the https URL of an '
            "ACME directory\n"
            'acme.email is "a@example.org": give an email address in a domain that you own',
        ),
        (
            {"acme": ACME | {"keyType": "ed25519", "challenge": "tls-alpn-01"}},
            "acme.challenge is \"tls-alpn-01\": give 'http-01' or 'dns-01'\n"
            "acme.keyType is \"ed25519\": give 'ecdsa' or 'rsa'",
        ),
        (
            {"acme": ACME | {"names": "play.ant-media.test"}},
            'acme.names is "play.ant-media.test": give a list: set each element with pulumi config set --path '
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
            'acme.names[3] is "a.example.org": this is an example name: give a host name in a domain that you own',
        ),
        (
            {"acme": ACME | {"names": ["a.test.net", "A.test.net"]}},
            'acme.names is ["a.test.net", "A.test.net"]: an item repeats: give each only once',
        ),
        (
            {"acme": ACME | {"names": ["a.test.net", "Live.Ant-Media.test"]}},
            'acme.names[1] is "live.ant-media.test": the certificate always includes the domain: leave it out',
        ),
        (
            {"acme": ACME | {"names": ["a.test.net", "*.live.ant-media.test"]}},
            'acme.names[1] is "*.live.ant-media.test": a wildcard needs dns-01: '
            "set acme.challenge to dns-01, or give each host name",
        ),
        (
            {"acme": ACME | {"challenge": "dns-01"}},
            'acme.challenge is "dns-01": dns-01 needs a Route 53 zone: pulumi config set route53Zone ZONE, '
            "or use http-01",
        ),
        (
            {
                "acme": ACME
                | {"challenge": "dns-01", "names": ["*.ant-media.test", "*.other.test", "other.test"]},
                "route53Zone": "ant-media.test",
            },
            'acme.names[1] is "*.other.test": dns-01 works only for names in the zone ant-media.test: leave it out\n'
            'acme.names[2] is "other.test": dns-01 works only for names in the zone ant-media.test: leave it out',
        ),
        (
            {"acme": ACME | {"root": "ca.pem"}},
            'acme.root is "ca.pem": there is no certificate: give PEM text (-----BEGIN CERTIFICATE-----…), '
            "not a file name",
        ),
        (
            {"tls": {"certificate": "", "privateKey": ""}},
            "acme and tls are both set, but the certificate has only one source: "
            "pulumi config rm acme, or pulumi config rm tls\n"
            "tls.certificate is not valid: there is no certificate: give PEM text (-----BEGIN CERTIFICATE-----…), "
            "not a file name\n"
            "tls.privateKey is not valid: there is no readable private key: give PEM text "
            "(-----BEGIN PRIVATE KEY-----…), not a file name",
        ),
        (
            {"acme": "", "tls": "{}"},
            "tls.certificate is not set: pulumi config set --path tls.certificate < fullchain.pem\n"
            "tls.privateKey is not set: pulumi config set --secret --path tls.privateKey < privkey.pem",
        ),
        (
            {"acme": "", "tls": "-----BEGIN PRIVATE KEY-----"},
            "tls is not valid: give an object: set each of its keys with pulumi config set --path tls.NAME VALUE",
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
            {"connectionsPerClient": "0"},
            'connectionsPerClient is "0": give a whole number from 10 to 1000000',
        ),
        (
            {"statisticsUser": "a:b"},
            'statisticsUser is "a:b": give 1 to 32 letters, digits, . _ or -',
        ),
        (
            {"sshHostKeySeed": "abcd"},
            "sshHostKeySeed is not valid: give 64 hexadecimal digits",
        ),
        (
            {"databasePassword": "p@ss/word!p@ss/word!"},
            "databasePassword is not valid: give 16 to 128 letters, digits, - . _ or ~ (it becomes "
            "part of a URL)",
        ),
        (
            {"sshPrivateKey": "ssh-ed25519 AAAA"},
            "sshPrivateKey is not valid: give an OpenSSH ed25519 private key without passphrase",
        ),
        (
            {"sshPrivateKey": ECDSA_KEY},
            "sshPrivateKey is not valid: give an OpenSSH ed25519 private key without passphrase",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else "+".join(value),
)
def test_an_error_gives_key_value_and_remedy(changes: dict[str, object], text: str):
    assert read_error(**changes) == text


def test_an_ssh_key_with_a_passphrase_is_refused(tmp_path: Path):
    file = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", file], timeout=300, check=True)
    assert read_error(sshPrivateKey=file.read_text()) == (
        "sshPrivateKey is not valid: give an OpenSSH ed25519 private key without passphrase"
    )


def test_a_private_key_in_plain_text_is_refused_and_not_shown():
    tls = json.dumps({"certificate": ECDSA_KEY, "privateKey": ECDSA_KEY})
    with pytest.raises(SettingsError) as error:
        read_settings(REQUIRED | {"tls": tls, "acme": json.dumps(ACME | {"root": ECDSA_KEY})}, SECRETS, NOW)
    assert (
        "ant-media-cluster:tls.privateKey is in plain text: encrypt it with pulumi config set --secret --path "
        "ant-media-cluster:tls.privateKey < privkey.pem, and give a new key and certificate "
        "if anyone else may have read this one"
    ) in str(error.value).splitlines()
    output = str(error.value) + read_error(acme=json.dumps(ACME | {"root": ECDSA_KEY}))
    assert ECDSA_KEY.splitlines()[1][:20] not in output
    for damaged in ("zq7", ["zq7"]):
        with pytest.raises(SettingsError) as error:
            read_settings(REQUIRED | {"tls": {"certificate": "", "privateKey": damaged}}, SECRETS, NOW)
        assert "zq7" not in str(error.value)
    # Pulumi marks an object as secret if any value in it is encrypted.
    assert "plain text" not in read_error(tls=tls)


secret_texts = st.text(max_size=40).map(lambda text: f"zq7{text}")


@given(st.sampled_from(SECRETS), secret_texts, st.booleans())
def test_no_error_shows_a_secret(key: str, secret: str, encrypted: bool):
    try:
        output = repr(
            read_settings(REQUIRED | {key: secret}, SECRETS if encrypted else {*SECRETS} - {key}, NOW)
        )
    except SettingsError as error:
        output = str(error)
    assert "zq7" not in output


def test_encrypted_values_and_unknown_settings_are_not_shown():
    with pytest.raises(SettingsError) as error:
        read_settings(REQUIRED | {"acme": {"email": "zq7"}, "pannelPassword": "zq7"}, {*SECRETS, "acme"}, NOW)
    assert "zq7" not in str(error.value)


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
def test_no_configuration_raises_anything_but_settings_error(raw: dict[str, object]):
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


def test_read_stack_settings_returns_the_settings():
    configure()
    assert read_stack_settings() == read()


def test_read_stack_settings_reports_all_problems_before_any_resource_exists(monkeypatch: pytest.MonkeyPatch):
    configure(TAGS | {"stack": "prod"}, srt="maybe", domian="live.ant-media.test")
    errors: list[str] = []
    monkeypatch.setattr(pulumi.log, "error", errors.append)
    with pytest.raises(SystemExit):
        read_stack_settings()
    assert errors == [
        "\n".join(
            [
                "Nothing was changed. Correct the configuration of stack dev:",
                "  ant-media-cluster:domian is not a setting: did you mean domain?",
                '  ant-media-cluster:srt is "maybe": give true or false',
                '  aws:defaultTags.tags.stack is "prod": pulumi config set --path aws:defaultTags.tags.stack dev',
            ]
        )
    ]


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_an_example_stack_misses_only_what_its_user_must_give(name: str):
    stack = STACKS[name]
    raw = {
        key.removeprefix(f"{NAMESPACE}:"): value for key, value in stack.items() if not key.startswith("aws:")
    }
    secrets = {key: REQUIRED[key] for key in SECRETS if key in REQUIRED}
    with pytest.raises(SettingsError) as error:
        read_settings(raw | secrets, SECRETS, NOW)
    output = str(error.value).splitlines() + find_stack_problems(NAMESPACE, name, stack["aws:defaultTags"])
    assert [line.split(" is not set: ") for line in output] == sorted(
        [key if ":" in key else f"{NAMESPACE}:{key}", command] for key, command in REQUIRED_FROM_USER.items()
    )


@pytest.mark.parametrize("name", STACKS)
def test_a_stack_file_repeats_no_default(name: str):
    for key, value in STACKS[name].items():
        default = SCHEMA.get(key.removeprefix(f"{NAMESPACE}:"), {}).get("default")
        assert value != default, key
        if isinstance(value, dict) and isinstance(default, dict):
            assert not value.items() & default.items(), key


def test_the_stack_files_have_separate_networks_and_valid_tags():
    networks = [
        ip_network({**SCHEMA["network"]["default"], **stack.get(f"{NAMESPACE}:network", {})}["cidr"])
        for stack in STACKS.values()
    ]
    assert not any(one.overlaps(other) for one, other in combinations(networks, 2))
    for name, stack in STACKS.items():
        tags = {"owner": "media-team", **stack["aws:defaultTags"]["tags"]}
        assert find_stack_problems(NAMESPACE, name, {"tags": tags}) == []


SUBNETS = '{"subnets": [{"id": "subnet-0123456789abcdef0", "cidr": "10.1.0.0/24"}]}'


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"loadBalancer": '{"elasticIp": "198.51.100.7"}'},
            'loadBalancer.elasticIp is "198.51.100.7": give the allocation id of an Elastic IP (eipalloc-…)',
        ),
        (
            {"hooks": '{"node": "../secrets.sh"}'},
            'hooks.node is "../secrets.sh": give the path of a file in this repository, from its root: hooks/node.sh, for example',
        ),
        (
            {"hooks": '{"edges": "a.sh"}'},
            "hooks.edges is not a setting: the settings are node, loadBalancer",
        ),
        (
            {"database": '{"subnet": {"id": "subnet-0bbbbbbbbbbbbbbbb", "cidr": "10.1.9.0/24"}}'},
            'database.subnet is {"id": "subnet-0bbbbbbbbbbbbbbbb", "cidr": "10.1.9.0/24"}: the program creates public subnets only: '
            "give network.subnets of a VPC that has this private one too",
        ),
        (
            {"network": SUBNETS, "database": '{"subnet": {"id": "subnet-0bbbbbbbbbbbbbbbb", "cidr": "10.1.0.64/28"}}'},
            'database.subnet is {"id": "subnet-0bbbbbbbbbbbbbbbb", "cidr": "10.1.0.64/28"}: subnet-0123456789abcdef0 (10.1.0.0/24) and '
            "subnet-0bbbbbbbbbbbbbbbb (10.1.0.64/28) overlap: give the CIDRs that AWS shows for them",
        ),
    ],
)  # fmt: skip
def test_what_is_the_users_own_is_validated(changes: dict[str, str], problem: str) -> None:
    assert read_error(**changes) == problem
