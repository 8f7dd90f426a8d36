"""The certificate after changes of its settings, of other settings, and after the loss of the load balancer."""

import json
import re
import socket
import ssl
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from sandbox.cloud import addresses
from tests.e2e.acme_servers import AcmeServer, extra_acme_server, sandbox_acme_server
from tests.e2e.aws_account import AwsAccount
from tests.e2e.clients import Client, SandboxInternet, basic_auth_header, get_peer_certificate, unverified_tls
from tests.e2e.cluster_certificate import RENEWAL_CONFIG, get_dns_names
from tests.e2e.cluster_certificate import TLS_PORTS as ENCRYPTED_PORTS
from tests.e2e.preview_output import list_operations, reports_changes
from tests.e2e.running_cluster import (
    CA_FILE,
    DOMAIN,
    SETTINGS_FILE,
    Cluster,
    CommandResult,
    Machine,
    wait_until,
)
from tests.e2e.stack_secrets import find_leaks
from tests.e2e.user_certificate import UserCertificate, encode_key, generate_key, issue_user_certificate

WATCH, STUDIO = f"watch.{addresses.ZONE}", f"studio.{addresses.ZONE}"
WILDCARD = f"*.{DOMAIN}"
CHALLENGE = f"_acme-challenge.{DOMAIN}"
TLS_PORTS = (*ENCRYPTED_PORTS, 5080)
"""5080 redirects plain HTTP, but also accepts TLS."""


@dataclass(frozen=True)
class Snapshot:
    served: x509.Certificate
    """On port 443."""
    records: dict[tuple[str, str], list[str]]
    """Values of the records in Route 53 by name and type."""
    machines: dict[str, Machine]
    orders: int
    """Orders at the sandbox's ACME server since it started."""


@dataclass(frozen=True)
class Change:
    before: Snapshot
    preview: str
    after: Snapshot

    @property
    def orders(self) -> int:
        return self.after.orders - self.before.orders


class Stack:
    """Changes the settings of the stack and records the effects."""

    def __init__(self, cluster: Cluster, account: AwsAccount, client: Client) -> None:
        self.cluster, self.account = cluster, account
        self._client = client
        self._settings = SETTINGS_FILE.read_text()
        self.acme_server = sandbox_acme_server()
        self.trust = ssl.create_default_context(cafile=str(CA_FILE))

    def config(self, *arguments: str, input: str | None = None) -> None:
        self.cluster.pulumi("config", *arguments, input=input).check()

    def set_acme_server(self, server: AcmeServer) -> None:
        self.cluster.set_config("acme.directory", server.directory)
        self.config("set", "--path", "ant-media-cluster:acme.root", input=server.root)

    def restore_settings(self) -> bool:
        """Restores the original settings. True if that changes the file."""
        changed = SETTINGS_FILE.read_text() != self._settings
        SETTINGS_FILE.write_text(self._settings)
        return changed

    def update(self) -> Change:
        before = self.take_snapshot()
        preview = self.cluster.pulumi("preview", "--diff").check()
        self.cluster.update()
        return Change(before, preview, self.take_snapshot())

    def take_snapshot(self) -> Snapshot:
        zone = self.get_zone_id()
        records = self.account.call("route53", "list_resource_record_sets", HostedZoneId=zone)
        return Snapshot(
            served=self.get_served(),
            records={
                (record["Name"].rstrip("."), record["Type"]): [
                    value["Value"] for value in record["ResourceRecords"]
                ]
                for record in records["ResourceRecordSets"]
            },
            machines=self.cluster.list_machines(),
            orders=self.acme_server.orders,
        )

    def get_served(self, name: str = DOMAIN, port: int = 443) -> x509.Certificate:
        """Returns the certificate that a port serves, which must be valid for the name."""
        with self._client.connect_tls(port, name, self.trust) as connection:
            return get_peer_certificate(connection)

    def get_zone_id(self) -> str:
        (zone,) = self.account.call("route53", "list_hosted_zones")["HostedZones"]
        return zone["Id"].rpartition("/")[2]

    def count_roles_and_secrets(self) -> int:
        kinds = [kind for kind, _ in self.account.list_resources()]
        return sum(kinds.count(kind) for kind in ("role", "instance profile", "secret"))

    def run_on_balancer(self, *command: str, input: str | None = None) -> str:
        return self.cluster.run_on("load-balancer", *command, input=input).check()

    def get_acme_account(self) -> str:
        """Returns the ID of the ACME account with which certbot renews."""
        (account,) = re.findall(r"(?m)^account = (\w+)$", self.run_on_balancer("cat", RENEWAL_CONFIG))
        return account


@pytest.fixture(scope="module")
def stack(cluster: Cluster, account: AwsAccount, operator_client: Client) -> Iterator[Stack]:
    """Restores the settings even if a test fails."""
    stack = Stack(cluster, account, operator_client)
    yield stack
    if stack.restore_settings():
        cluster.update()


# Further names


@pytest.fixture(scope="module")
def further_names(stack: Stack) -> Change:
    stack.cluster.set_config("acme.names[0]", WATCH)
    stack.cluster.set_config("acme.names[1]", STUDIO)
    return stack.update()


def test_preview_of_further_names_shows_the_command_and_the_records(further_names: Change) -> None:
    preview = further_names.preview
    (commands,) = re.findall(
        r'(?m)^ *~ create: "(.*)/issue-certificate.sh (.*)" => "(.*)/issue-certificate.sh (.*)"$', preview
    )
    assert commands[1].replace(f" {DOMAIN} ", f" {DOMAIN} {WATCH} {STUDIO} ") == commands[3]
    assert list_operations(preview, "+") == [f"load-balancer-record-{name}" for name in (STUDIO, WATCH)]
    assert list_operations(preview, "-") == []
    assert list_operations(preview, "+-") == ["service-certificate", "service-certificate-in-service"]


def test_further_names_are_in_the_zone_and_in_the_served_certificate(
    stack: Stack, further_names: Change
) -> None:
    after = further_names.after
    assert get_dns_names(further_names.before.served) == {DOMAIN}
    assert get_dns_names(after.served) == {DOMAIN, WATCH, STUDIO}
    for name in (WATCH, STUDIO):
        assert after.records[name, "A"] == after.records[DOMAIN, "A"]
        for port in TLS_PORTS:
            assert stack.get_served(name, port) == after.served
    assert further_names.orders == 1
    assert after.machines == further_names.before.machines


# Other settings


@pytest.fixture(scope="module")
def other_settings(stack: Stack, further_names: Change) -> Change:
    cluster = stack.cluster
    cluster.update("--expect-no-changes")
    password = "another-password-for-the-statistics"
    stack.config("set", "--secret", "ant-media-cluster:statisticsPassword", input=password)
    cluster.set_config("applications[0]", "LiveApp")
    cluster.set_config("applications[1]", "WebRTCAppEE")
    cluster.set_config("hstsMaxAge", 31536000)
    return stack.update()


def test_other_settings_do_not_reissue_the_certificate(further_names: Change, other_settings: Change) -> None:
    assert other_settings.after.served == further_names.after.served
    assert other_settings.after.orders == further_names.after.orders
    assert "issue-certificate.sh" not in other_settings.preview


def test_strict_transport_security_uses_the_configured_age_and_every_port_accepts_https(
    cluster: Cluster, client: Client, other_settings: Change
) -> None:
    for place in (f"{DOMAIN}/LiveApp/", f"{DOMAIN}:5443/LiveApp/", f"{DOMAIN}:4444/"):
        assert client.get(f"https://{place}").header("Strict-Transport-Security") == "max-age=31536000"
    # A browser that follows the header also uses https on ports that served plain HTTP.
    assert client.get(f"https://{DOMAIN}:5080/LiveApp/").redirect == (301, f"https://{DOMAIN}:5443/LiveApp/")
    assert client.get(f"http://{DOMAIN}:5080/LiveApp/").redirect == (301, f"https://{DOMAIN}:5443/LiveApp/")
    statistics = f"{DOMAIN}:6080/haproxy_stats"
    assert client.get(f"http://{statistics}").redirect == (301, f"https://{statistics}")
    login = basic_auth_header("admin", cluster.get_config("statisticsPassword"))
    assert client.get(f"https://{statistics}", login).status == 200


# Fewer names, another key type


@pytest.fixture(scope="module")
def fewer_names_and_rsa(stack: Stack, other_settings: Change) -> Change:
    stack.config("rm", "--path", "ant-media-cluster:acme.names[1]")
    stack.cluster.set_config("acme.keyType", "rsa")
    return stack.update()


def test_removed_name_is_removed_from_the_certificate_and_the_zone(
    stack: Stack, fewer_names_and_rsa: Change
) -> None:
    assert list_operations(fewer_names_and_rsa.preview, "-") == [f"load-balancer-record-{STUDIO}"]
    assert get_dns_names(fewer_names_and_rsa.after.served) == {DOMAIN, WATCH}
    assert (STUDIO, "A") not in fewer_names_and_rsa.after.records
    with pytest.raises(ssl.SSLCertVerificationError):
        stack.get_served(STUDIO)


def test_another_key_type_reissues_the_certificate(fewer_names_and_rsa: Change) -> None:
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
def other_server(stack: Stack, internet: SandboxInternet) -> Iterator[AcmeServer]:
    with extra_acme_server(internet, 14100) as server:
        stack.trust.load_verify_locations(cadata=server.root)
        yield server


@pytest.fixture(scope="module")
def other_directory(stack: Stack, fewer_names_and_rsa: Change, other_server: AcmeServer) -> Change:
    stack.set_acme_server(other_server)
    stack.config("rm", "--path", "ant-media-cluster:acme.keyType")
    return stack.update()


def test_another_directory_issues_the_certificate(
    operator_client: Client, other_directory: Change, other_server: AcmeServer
) -> None:
    assert get_dns_names(other_directory.after.served) == {DOMAIN, WATCH}
    assert f"--directory {other_server.directory} " in other_directory.preview
    assert (other_directory.orders, other_server.orders) == (0, 1)
    with pytest.raises(ssl.SSLCertVerificationError):
        operator_client.connect_tls(443, DOMAIN)  # trusts only the sandbox's CA


# dns-01, a wildcard and the original server


@pytest.fixture(scope="module")
def wildcard(stack: Stack, other_directory: Change) -> Change:
    stack.set_acme_server(stack.acme_server)
    stack.cluster.set_config("acme.challenge", "dns-01")
    stack.cluster.set_config("acme.names[0]", WILDCARD)
    return stack.update()


def test_wildcard_is_validated_through_route_53_and_the_challenge_record_deleted(
    stack: Stack, wildcard: Change, other_server: AcmeServer
) -> None:
    after = wildcard.after
    assert get_dns_names(after.served) == {DOMAIN, WILDCARD}
    assert stack.get_served(f"anything.{DOMAIN}", 5443) == after.served
    assert "--challenge dns-01" in wildcard.preview
    assert {name for name, kind in after.records if kind in ("A", "TXT")} == {DOMAIN}
    assert (wildcard.orders, other_server.orders) == (1, 1)


CALL_AWS = """
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


def test_role_of_the_balancer_permits_only_changes_of_its_challenge_record(
    stack: Stack, wildcard: Change
) -> None:
    zone = stack.get_zone_id()

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
    permitted = [change(("UPSERT", *proof)), change(("DELETE", *proof))]
    denied = [
        change(("UPSERT", DOMAIN, "A", addresses.STRANGER)),
        change(("DELETE", DOMAIN, "A", address)),
        change(("UPSERT", CHALLENGE, "A", addresses.STRANGER)),
        change(("UPSERT", DOMAIN, "TXT", '"proof"')),
        change(("UPSERT", f"_acme-challenge.{WATCH}", "TXT", '"proof"')),
        change(("UPSERT", *proof), ("UPSERT", DOMAIN, "A", addresses.STRANGER)),
        {"service": "secretsmanager", "operation": "list_secrets"},
    ]
    results = json.loads(
        stack.run_on_balancer("python3", "-c", CALL_AWS, input=json.dumps([*permitted, *denied]))
    )
    assert results[: len(permitted)] == ["allowed"] * len(permitted)
    assert [code.removesuffix("Exception") for code in results[len(permitted) :]] == ["AccessDenied"] * len(
        denied
    )
    assert stack.take_snapshot().records == wildcard.after.records


# Loss of the load balancer


@dataclass(frozen=True)
class Replacement(Change):
    seen: set[x509.Certificate]
    """Certificates that port 443 served while the new machine started."""
    accounts: tuple[str, str]
    """ACME account before and after."""


@contextmanager
def recording_certificates(internet: SandboxInternet, address: str) -> Generator[set[x509.Certificate]]:
    """Connects repeatedly and collects every certificate served."""
    context = unverified_tls()
    seen: set[x509.Certificate] = set()
    stopping = threading.Event()

    def connect() -> None:
        with internet.call(socket.socket) as plain:
            plain.settimeout(0.5)
            plain.connect((address, 443))
            with context.wrap_socket(plain, server_hostname=DOMAIN) as connection:
                seen.add(get_peer_certificate(connection))

    def connect_repeatedly() -> None:
        while not stopping.wait(0.05):
            with suppress(OSError):  # until the new machine responds, connections fail
                connect()

    thread = threading.Thread(target=connect_repeatedly)
    thread.start()
    try:
        yield seen
    finally:
        stopping.set()
        thread.join()


@pytest.fixture(scope="module")
def replacement(stack: Stack, internet: SandboxInternet, wildcard: Change) -> Replacement:
    cluster = stack.cluster
    before, account = stack.take_snapshot(), stack.get_acme_account()
    (address,) = before.records[DOMAIN, "A"]
    stack.account.call("ec2", "terminate_instances", InstanceIds=[before.machines["load-balancer"].id])
    wait_until(lambda: "load-balancer" not in cluster.list_machines())
    cluster.refresh()
    with recording_certificates(internet, address) as seen:
        cluster.update()
    return Replacement(before, "", stack.take_snapshot(), seen, (account, stack.get_acme_account()))


def test_terminated_balancer_is_recreated_with_its_certificate_and_acme_account(
    cluster: Cluster, replacement: Replacement
) -> None:
    before, after = replacement.before, replacement.after
    assert after.machines["load-balancer"].id != before.machines["load-balancer"].id
    assert after.served == before.served
    assert after.records == before.records
    assert replacement.orders == 0
    assert replacement.accounts[0] == replacement.accounts[1]
    cluster.pulumi("preview", "--expect-no-changes").check()


def test_new_balancer_never_serves_another_certificate(replacement: Replacement) -> None:
    assert replacement.seen == {replacement.before.served}


def test_new_balancer_renews_by_dns_01(stack: Stack, replacement: Replacement) -> None:
    stack.run_on_balancer("sed", "-i", "1i renew_before_expiry = 20 years", RENEWAL_CONFIG)
    stack.run_on_balancer("systemctl", "start", "certbot.service")
    stack.run_on_balancer("sed", "-i", "/^renew_before_expiry/d", RENEWAL_CONFIG)
    before, after = replacement.after, stack.take_snapshot()
    assert after.orders == before.orders + 1
    assert after.served != before.served
    assert get_dns_names(after.served) == {DOMAIN, WILDCARD}
    assert after.records == before.records
    assert stack.get_acme_account() == replacement.accounts[0]


# A user's certificate


@dataclass(frozen=True)
class Switch(Change):
    certificate: UserCertificate
    refused: dict[str, CommandResult]
    """Result of `up` with each invalid key."""
    output: str


@pytest.fixture(scope="module")
def switch(stack: Stack, replacement: Replacement) -> Switch:
    """Switches to a user's certificate with the commands of Pulumi.yaml."""
    cluster, certificate = stack.cluster, issue_user_certificate(DOMAIN)
    assert stack.count_roles_and_secrets() == 3
    key = ("--path", "ant-media-cluster:tls.privateKey")
    stack.config("rm", "ant-media-cluster:acme")
    stack.config("set", "--path", "ant-media-cluster:tls.certificate", input=certificate.chain)
    refused: dict[str, CommandResult] = {}
    stack.config("set", "--plaintext", *key, input=certificate.private_key)
    refused["unencrypted"] = cluster.pulumi("up", "--yes", "--skip-preview")
    stack.config("set", "--secret", *key, input=encode_key(generate_key()))
    refused["mismatched"] = cluster.pulumi("up", "--yes", "--skip-preview")
    stack.config("set", "--secret", *key, input=certificate.private_key)
    stack.trust.load_verify_locations(cadata=certificate.root)
    before = stack.take_snapshot()
    preview = cluster.pulumi("preview", "--diff").stdout
    output = cluster.update()
    return Switch(before, preview, stack.take_snapshot(), certificate, refused, output)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("unencrypted", "tls.privateKey is in plain text: encrypt it with pulumi config set --secret"),
        ("mismatched", f"tls.privateKey is not valid: this is not the key of certificate 1 ({DOMAIN})"),
    ],
)
def test_invalid_key_is_refused_before_anything_changes(switch: Switch, case: str, message: str) -> None:
    refused = switch.refused[case]
    assert refused.exit_code != 0
    assert "Nothing was changed." in refused.output
    assert f"ant-media-cluster:{message}" in refused.output
    assert not reports_changes(refused.output)


def test_user_certificate_is_served_on_every_port_and_certbot_does_not_replace_it(
    stack: Stack, switch: Switch
) -> None:
    fingerprint = switch.certificate.certificate.fingerprint(SHA256()).hex(":").upper()
    assert f"use-certificate.sh --sha256 {fingerprint} " in switch.preview
    stack.run_on_balancer("systemctl", "start", "certbot.service")
    # Trusts only the root, so the server must send the intermediate.
    stack.trust = ssl.create_default_context(cadata=switch.certificate.root)
    for port in TLS_PORTS:
        assert stack.get_served(port=port) == switch.certificate.certificate, port
    assert switch.orders == 0


def test_role_and_secret_are_deleted_and_the_balancer_stays(stack: Stack, switch: Switch) -> None:
    assert stack.count_roles_and_secrets() == 0
    assert switch.after.machines == switch.before.machines


def test_user_key_appears_nowhere_in_clear_text(cluster: Cluster, switch: Switch) -> None:
    texts = {
        "preview": switch.preview,
        "up": switch.output,
        **{f"up with the {case} key": result.output for case, result in switch.refused.items()},
        "state": cluster.pulumi("stack", "export").check(),
        "settings": SETTINGS_FILE.read_text(),
    }
    lines = [line.encode() for line in switch.certificate.private_key.splitlines()[1:-1]]
    assert find_leaks({place: text.encode() for place, text in texts.items()}, {"key": lines}) == []


# The original settings


def test_original_settings_restore_http_01_and_every_resource(
    stack: Stack, further_names: Change, replacement: Replacement, switch: Switch
) -> None:
    stack.trust = ssl.create_default_context(cadata=stack.acme_server.root)
    stack.trust.load_verify_locations(cadata=switch.certificate.root)
    stack.restore_settings()
    restored = stack.update()
    assert "--challenge http-01" in restored.preview
    assert get_dns_names(restored.after.served) == {DOMAIN}
    assert restored.orders == 1
    assert stack.get_acme_account() == replacement.accounts[0]
    assert restored.after.records == further_names.before.records
    assert stack.count_roles_and_secrets() == 3
    stack.cluster.pulumi("preview", "--expect-no-changes").check()
