"""What becomes of the certificate when its settings change, when others do, and when its machine is gone."""

import base64
import json
import re
import socket
import ssl
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from sandbox.cloud import addresses
from tests.e2e.acme_servers import AcmeServer, another_acme_server
from tests.e2e.clients import Internet, Visitor
from tests.e2e.running_cluster import DOMAIN, STATE, Cluster, Done, Machine, eventually
from tests.e2e.stack_secrets import found_in
from tests.e2e.test_edge_scaling import operations
from tests.e2e.test_machine_lifecycle import in_ec2
from tests.e2e.user_certificate import OwnCertificate, as_text, make_certificate, new_key

WATCH, STUDIO = f"watch.{addresses.ZONE}", f"studio.{addresses.ZONE}"
WILDCARD = f"*.{DOMAIN}"
CHALLENGE = f"_acme-challenge.{DOMAIN}"
TLS_PORTS = (443, 4444, 5080, 5443, 6080)
SETTINGS = STATE / "pulumi/Pulumi.sandbox.yaml"
RENEWAL = "/etc/letsencrypt/renewal/cluster.conf"


@dataclass(frozen=True)
class Look:
    """What there is of the certificate."""

    served: x509.Certificate
    """On port 443."""
    records: dict[tuple[str, str], list[str]]
    """In Route 53, by name and type."""
    machines: dict[str, Machine]
    orders: int
    """How many certificates the ACME server was asked for since it started."""


@dataclass(frozen=True)
class Change:
    before: Look
    preview: str
    after: Look

    @property
    def orders(self) -> int:
        return self.after.orders - self.before.orders


class Stack:
    """Changes settings, and looks at what comes of it."""

    def __init__(self, cluster: Cluster, internet: Internet, visitor: Visitor) -> None:
        self.cluster = cluster
        self._internet, self._visitor = internet, visitor
        self._settings = SETTINGS.read_text()
        acme = yaml.safe_load(self._settings)["config"]["ant-media-cluster:acme"]
        self.server = AcmeServer(acme["directory"], acme["root"], STATE / "acme/pebble.log")
        self.trust = ssl.create_default_context(cafile=str(STATE / "operator/ca-certificates.crt"))

    def config(self, *arguments: str, input: str | None = None) -> None:
        self.cluster.must("sandbox/bin/pulumi", "config", *arguments, input=input)

    def ask_of(self, server: AcmeServer) -> None:
        """Sets whom to ask for certificates."""
        self.cluster.set("acme.directory", server.directory)
        self.config("set", "--path", "ant-media-cluster:acme.root", input=server.root)

    def undo(self) -> bool:
        """Puts the settings back as they were at first; whether that changes anything."""
        changed = SETTINGS.read_text() != self._settings
        SETTINGS.write_text(self._settings)
        return changed

    def update(self) -> Change:
        before = self.look()
        preview = self.cluster.pulumi("preview", "--diff")
        assert preview.status == 0, preview.output
        self.cluster.update()
        return Change(before, preview.stdout, self.look())

    def look(self) -> Look:
        records = self.aws("route53", "list_resource_record_sets", HostedZoneId=self.zone())
        return Look(
            served=self.served(),
            records={
                (record["Name"].rstrip("."), record["Type"]): [
                    value["Value"] for value in record["ResourceRecords"]
                ]
                for record in records["ResourceRecordSets"]
            },
            machines=self.cluster.machines(),
            orders=self.server.orders,
        )

    def served(self, name: str = DOMAIN, port: int = 443) -> x509.Certificate:
        """The certificate that a visitor is shown; it must hold for the name."""
        with self._visitor.connect_tls(port, name, self.trust) as connection:
            return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")

    def aws(self, service: str, operation: str, **arguments: object) -> Any:
        """What AWS answers somebody who may do everything."""
        client = self.cluster.aws(service)
        return self._internet.do(lambda: getattr(client, operation)(**arguments))

    def zone(self) -> str:
        (zone,) = self.aws("route53", "list_hosted_zones")["HostedZones"]
        return zone["Id"].rpartition("/")[2]

    def roles_and_secrets(self) -> int:
        return (
            len(self.aws("iam", "list_roles")["Roles"])
            + len(self.aws("iam", "list_instance_profiles")["InstanceProfiles"])
            + len(self.aws("secretsmanager", "list_secrets")["SecretList"])
        )

    def on_balancer(self, *command: str, input: str | None = None) -> str:
        done = self.cluster.shell("load-balancer", *command, input=input)
        assert done.status == 0, done.output
        return done.stdout

    def account(self) -> str:
        """The one at the ACME server that certbot renews with."""
        (account,) = re.findall(r"(?m)^account = (\w+)$", self.on_balancer("cat", RENEWAL))
        return account


def names(certificate: x509.Certificate) -> set[str]:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return set(extension.value.get_values_for_type(x509.DNSName))


@pytest.fixture(scope="module")
def stack(cluster: Cluster, internet: Internet, operator: Visitor) -> Iterator[Stack]:
    """Whatever becomes of these tests, the next ones find the settings that there were."""
    stack = Stack(cluster, internet, operator)
    yield stack
    if stack.undo():
        cluster.update()


# Further names


@pytest.fixture(scope="module")
def further_names(stack: Stack) -> Change:
    stack.cluster.set("acme.names[0]", WATCH)
    stack.cluster.set("acme.names[1]", STUDIO)
    return stack.update()


def test_the_preview_of_further_names_shows_them_in_the_command_and_as_records(further_names: Change) -> None:
    preview = further_names.preview
    (commands,) = re.findall(
        r'(?m)^ *~ create: "(.*)/issue-certificate.sh (.*)" => "(.*)/issue-certificate.sh (.*)"$', preview
    )
    assert commands[1].replace(f" {DOMAIN} ", f" {DOMAIN} {WATCH} {STUDIO} ") == commands[3]
    assert operations(preview, "+") == [f"load-balancer-record-{name}" for name in (STUDIO, WATCH)]
    assert operations(preview, "-") == operations(preview, "+-") == []


def test_further_names_are_in_the_zone_in_the_certificate_and_served(
    stack: Stack, further_names: Change
) -> None:
    after = further_names.after
    assert names(further_names.before.served) == {DOMAIN}
    assert names(after.served) == {DOMAIN, WATCH, STUDIO}
    for name in (WATCH, STUDIO):
        assert after.records[name, "A"] == after.records[DOMAIN, "A"]
        for port in TLS_PORTS:
            assert stack.served(name, port) == after.served
    assert further_names.orders == 1
    assert after.machines == further_names.before.machines


# Other settings


@pytest.fixture(scope="module")
def other_settings(stack: Stack, further_names: Change) -> Change:
    cluster = stack.cluster
    cluster.update("--expect-no-changes")
    password = "another-password-for-the-statistics"
    stack.config("set", "--secret", "ant-media-cluster:statisticsPassword", input=password)
    cluster.set("applications[0]", "LiveApp")
    cluster.set("applications[1]", "WebRTCAppEE")
    cluster.set("hstsMaxAge", 31536000)
    return stack.update()


def test_nothing_is_issued_again_for_other_settings_nor_for_none(
    further_names: Change, other_settings: Change
) -> None:
    assert other_settings.after.served == further_names.after.served
    assert other_settings.after.orders == further_names.after.orders
    assert "issue-certificate.sh" not in other_settings.preview


def test_strict_transport_security_lasts_as_long_as_the_user_says_and_locks_nobody_out(
    cluster: Cluster, visitor: Visitor, other_settings: Change
) -> None:
    for place in (f"{DOMAIN}/LiveApp/", f"{DOMAIN}:5443/LiveApp/", f"{DOMAIN}:4444/"):
        assert visitor.get(f"https://{place}").header("Strict-Transport-Security") == "max-age=31536000"
    # A browser that heeds it comes with https to ports that were plain.
    assert visitor.get(f"https://{DOMAIN}:5080/LiveApp/").redirect == (301, f"https://{DOMAIN}:5443/LiveApp/")
    assert visitor.get(f"http://{DOMAIN}:5080/LiveApp/").redirect == (301, f"https://{DOMAIN}:5443/LiveApp/")
    statistics = f"{DOMAIN}:6080/haproxy_stats"
    assert visitor.get(f"http://{statistics}").redirect == (301, f"https://{statistics}")
    login = base64.b64encode(f"admin:{cluster.setting('statisticsPassword')}".encode()).decode()
    assert visitor.get(f"https://{statistics}", f"Authorization: Basic {login}\r\n").status == 200


# Fewer names, another kind of key


@pytest.fixture(scope="module")
def fewer_names_and_rsa(stack: Stack, other_settings: Change) -> Change:
    stack.config("rm", "--path", "ant-media-cluster:acme.names[1]")
    stack.cluster.set("acme.keyType", "rsa")
    return stack.update()


def test_a_name_that_is_taken_away_leaves_the_certificate_and_the_zone(
    stack: Stack, fewer_names_and_rsa: Change
) -> None:
    assert operations(fewer_names_and_rsa.preview, "-") == [f"load-balancer-record-{STUDIO}"]
    assert names(fewer_names_and_rsa.after.served) == {DOMAIN, WATCH}
    assert (STUDIO, "A") not in fewer_names_and_rsa.after.records
    with pytest.raises(ssl.SSLCertVerificationError):
        stack.served(STUDIO)


def test_another_kind_of_key_brings_a_new_certificate(fewer_names_and_rsa: Change) -> None:
    key = fewer_names_and_rsa.before.served.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    key = fewer_names_and_rsa.after.served.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == 2048
    assert "--key-type rsa" in fewer_names_and_rsa.preview
    assert fewer_names_and_rsa.orders == 1


# Another ACME server


@pytest.fixture(scope="module")
def other_server(stack: Stack, internet: Internet) -> Iterator[AcmeServer]:
    with another_acme_server(internet, 14100) as server:
        stack.trust.load_verify_locations(cadata=server.root)
        yield server


@pytest.fixture(scope="module")
def other_directory(stack: Stack, fewer_names_and_rsa: Change, other_server: AcmeServer) -> Change:
    stack.ask_of(other_server)
    stack.config("rm", "--path", "ant-media-cluster:acme.keyType")
    return stack.update()


def test_another_directory_brings_a_certificate_from_there(
    operator: Visitor, other_directory: Change, other_server: AcmeServer
) -> None:
    assert names(other_directory.after.served) == {DOMAIN, WATCH}
    assert f"--directory {other_server.directory} " in other_directory.preview
    assert (other_directory.orders, other_server.orders) == (0, 1)
    with pytest.raises(ssl.SSLCertVerificationError):
        operator.connect_tls(443, DOMAIN)  # who trusts the first one


# dns-01, a wildcard, and the first server again


@pytest.fixture(scope="module")
def wildcard(stack: Stack, other_directory: Change) -> Change:
    stack.ask_of(stack.server)
    stack.cluster.set("acme.challenge", "dns-01")
    stack.cluster.set("acme.names[0]", WILDCARD)
    return stack.update()


def test_a_wildcard_is_certified_through_route_53_and_nothing_of_the_proof_stays_there(
    stack: Stack, wildcard: Change, other_server: AcmeServer
) -> None:
    after = wildcard.after
    assert names(after.served) == {DOMAIN, WILDCARD}
    assert stack.served(f"anything.{DOMAIN}", 5443) == after.served
    assert "--challenge dns-01" in wildcard.preview
    assert {name for name, kind in after.records if kind in ("A", "TXT")} == {DOMAIN}
    assert (wildcard.orders, other_server.orders) == (1, 1)


ATTEMPTS = """
import boto3, botocore.exceptions, json, sys

def attempt(service, operation, **arguments):
    client = boto3.client(service, region_name="eu-west-1")
    try:
        getattr(client, operation)(**arguments)
    except botocore.exceptions.ClientError as error:
        return error.response["Error"]["Code"]
    return "allowed"

print(json.dumps([attempt(**attempted) for attempted in json.load(sys.stdin)]))
"""


def test_the_balancers_role_may_change_its_challenge_record_and_nothing_else(
    stack: Stack, wildcard: Change
) -> None:
    zone = stack.zone()

    def change(*changes: tuple[str, str, str, str]) -> dict[str, object]:
        batch = [
            {
                "Action": action,
                "ResourceRecordSet": {
                    "Name": name,
                    "Type": kind,
                    "TTL": 60,
                    "ResourceRecords": [{"Value": value}],
                },
            }
            for action, name, kind, value in changes
        ]
        return {
            "service": "route53",
            "operation": "change_resource_record_sets",
            "HostedZoneId": zone,
            "ChangeBatch": {"Changes": batch},
        }

    (address,) = wildcard.after.records[DOMAIN, "A"]
    proof = (CHALLENGE, "TXT", '"proof"')
    may = [change(("UPSERT", *proof)), change(("DELETE", *proof))]
    may_not = [
        change(("UPSERT", DOMAIN, "A", addresses.STRANGER)),
        change(("DELETE", DOMAIN, "A", address)),
        change(("UPSERT", CHALLENGE, "A", addresses.STRANGER)),
        change(("UPSERT", DOMAIN, "TXT", '"proof"')),
        change(("UPSERT", f"_acme-challenge.{WATCH}", "TXT", '"proof"')),
        change(("UPSERT", *proof), ("UPSERT", DOMAIN, "A", addresses.STRANGER)),
        {"service": "secretsmanager", "operation": "list_secrets"},
    ]
    said = json.loads(stack.on_balancer("python3", "-c", ATTEMPTS, input=json.dumps([*may, *may_not])))
    assert said[: len(may)] == ["allowed"] * len(may)
    assert [code.removesuffix("Exception") for code in said[len(may) :]] == ["AccessDenied"] * len(may_not)
    assert stack.look().records == wildcard.after.records


# A balancer that is gone


@dataclass(frozen=True)
class Replacement(Change):
    seen: set[x509.Certificate]
    """All that port 443 showed while the new machine came up."""
    accounts: tuple[str, str]
    """At the ACME server, before and after."""


@contextmanager
def watching(internet: Internet, address: str) -> Generator[set[x509.Certificate]]:
    """Every certificate that somebody is shown who connects again and again."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    seen: set[x509.Certificate] = set()
    done = threading.Event()

    def connect() -> None:
        with internet.do(socket.socket) as plain:
            plain.settimeout(0.5)
            plain.connect((address, 443))
            with context.wrap_socket(plain, server_hostname=DOMAIN) as connection:
                seen.add(x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b""))

    def watch() -> None:
        while not done.wait(0.05):
            with suppress(OSError):  # most of the time nobody answers
                connect()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


@pytest.fixture(scope="module")
def replacement(stack: Stack, internet: Internet, wildcard: Change) -> Replacement:
    cluster = stack.cluster
    before, account = stack.look(), stack.account()
    (address,) = before.records[DOMAIN, "A"]
    in_ec2(cluster, internet, "terminate_instances", before.machines["load-balancer"])
    eventually(lambda: "load-balancer" not in cluster.machines(), within=30)
    refresh = cluster.pulumi("refresh", "--yes", "--skip-preview")
    assert refresh.status == 0, refresh.output
    with watching(internet, address) as seen:
        cluster.update()
    return Replacement(before, "", stack.look(), seen, (account, stack.account()))


def test_a_balancer_that_was_ended_by_hand_is_made_again_with_its_certificate_and_its_account(
    cluster: Cluster, replacement: Replacement
) -> None:
    before, after = replacement.before, replacement.after
    assert after.machines["load-balancer"].id != before.machines["load-balancer"].id
    assert after.served == before.served
    assert after.records == before.records
    assert replacement.orders == 0
    assert replacement.accounts[0] == replacement.accounts[1]
    assert cluster.pulumi("preview", "--expect-no-changes").status == 0


def test_a_new_balancer_shows_no_other_certificate_before(replacement: Replacement) -> None:
    assert replacement.seen == {replacement.before.served}


def test_a_new_balancer_renews_by_dns_01_as_the_one_before_it(stack: Stack, replacement: Replacement) -> None:
    stack.on_balancer("sed", "-i", "1i renew_before_expiry = 20 years", RENEWAL)
    stack.on_balancer("systemctl", "start", "certbot.service")
    stack.on_balancer("sed", "-i", "/^renew_before_expiry/d", RENEWAL)
    before, after = replacement.after, stack.look()
    assert after.orders == before.orders + 1
    assert after.served != before.served
    assert names(after.served) == {DOMAIN, WILDCARD}
    assert after.records == before.records
    assert stack.account() == replacement.accounts[0]


# A certificate of the user's own


@dataclass(frozen=True)
class Switch(Change):
    own: OwnCertificate
    refused: dict[str, Done]
    """What `up` said to each wrong key."""
    output: str


@pytest.fixture(scope="module")
def switch(stack: Stack, replacement: Replacement) -> Switch:
    """By the commands of Pulumi.yaml."""
    cluster, own = stack.cluster, make_certificate(DOMAIN)
    assert stack.roles_and_secrets() == 3
    key = ("--path", "ant-media-cluster:tls.privateKey")
    stack.config("rm", "ant-media-cluster:acme")
    stack.config("set", "--path", "ant-media-cluster:tls.certificate", input=own.chain)
    refused: dict[str, Done] = {}
    stack.config("set", "--plaintext", *key, input=own.private_key)
    refused["in plain text"] = cluster.pulumi("up", "--yes", "--skip-preview")
    stack.config("set", "--secret", *key, input=as_text(new_key()))
    refused["of another"] = cluster.pulumi("up", "--yes", "--skip-preview")
    stack.config("set", "--secret", *key, input=own.private_key)
    stack.trust.load_verify_locations(cadata=own.root)
    before = stack.look()
    preview = cluster.pulumi("preview", "--diff").stdout
    output = cluster.update()
    return Switch(before, preview, stack.look(), own, refused, output)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("in plain text", "tls.privateKey is in plain text: encrypt it with pulumi config set --secret"),
        ("of another", f"tls.privateKey will not do: it is not the key of certificate 1 ({DOMAIN})"),
    ],
)
def test_a_key_that_will_not_do_is_refused_before_anything_is_touched(
    switch: Switch, wrong: str, says: str
) -> None:
    done = switch.refused[wrong]
    assert done.status != 0
    assert "Nothing was touched." in done.output
    assert f"ant-media-cluster:{says}" in done.output
    assert not re.search(r"\d+ (created|updated|deleted|replaced)", done.output)


def test_a_certificate_of_the_users_own_is_served_on_every_port_and_certbot_leaves_it(
    stack: Stack, switch: Switch
) -> None:
    fingerprint = switch.own.certificate.fingerprint(SHA256()).hex(":").upper()
    assert f"use-certificate.sh --sha256 {fingerprint} " in switch.preview
    stack.on_balancer("systemctl", "start", "certbot.service")
    stack.trust = ssl.create_default_context(cadata=switch.own.root)  # so the intermediate's must come along
    for port in TLS_PORTS:
        assert stack.served(port=port) == switch.own.certificate, port
    assert switch.orders == 0


def test_the_role_and_the_secret_go_and_the_balancer_stays(stack: Stack, switch: Switch) -> None:
    assert stack.roles_and_secrets() == 0
    assert switch.after.machines == switch.before.machines


def test_the_users_key_shows_nowhere(cluster: Cluster, switch: Switch) -> None:
    texts = {
        "preview": switch.preview,
        "up": switch.output,
        **{f"up with the key {wrong}": done.output for wrong, done in switch.refused.items()},
        "state": cluster.must("sandbox/bin/pulumi", "stack", "export"),
        "settings": SETTINGS.read_text(),
    }
    lines = [line.encode() for line in switch.own.private_key.splitlines()[1:-1]]
    assert found_in({place: text.encode() for place, text in texts.items()}, {"key": lines}) == []


# And back


def test_the_settings_of_before_bring_back_a_certificate_by_http_01_and_all_that_there_was(
    stack: Stack, further_names: Change, replacement: Replacement, switch: Switch
) -> None:
    stack.trust = ssl.create_default_context(cadata=stack.server.root)
    stack.trust.load_verify_locations(cadata=switch.own.root)
    stack.undo()
    back = stack.update()
    assert "--challenge http-01" in back.preview
    assert names(back.after.served) == {DOMAIN}
    assert back.orders == 1
    assert stack.account() == replacement.accounts[0]
    assert back.after.records == further_names.before.records
    assert stack.roles_and_secrets() == 3
    assert stack.cluster.pulumi("preview", "--expect-no-changes").status == 0
