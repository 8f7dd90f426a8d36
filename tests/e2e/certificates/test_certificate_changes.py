"""The certificate after changes of its settings, of other settings, and after the loss of the load balancer."""

import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
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
from tests.e2e.user_certificate import UserCertificate, issue_user_certificate

WATCH, STUDIO = f"watch.{addresses.ZONE}", f"studio.{addresses.ZONE}"
FOREIGN_ZONE = "foreign-zone.test"
FOREIGN = f"watch.{FOREIGN_ZONE}"
WILDCARD = f"*.{DOMAIN}"
CHALLENGE = f"_acme-challenge.{DOMAIN}"
TLS_PORTS = (*ENCRYPTED_PORTS, 5080)
"""5080 redirects plain HTTP, but also accepts TLS."""
HSTS_MAX_AGE = 31536000
STATISTICS_PASSWORD = "another-password-for-the-statistics"
CONFIGURATION = ["service-configuration", "service-endpoints", "service-servers"]
"""What another haproxy.cfg replaces."""


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
    output: str
    """Of the update."""
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
        self.acme: dict[str, Any] = yaml.safe_load(self._settings)["config"]["ant-media-cluster:acme"]
        """The original settings."""
        self.acme_server = sandbox_acme_server()
        self.trust = ssl.create_default_context(cafile=str(CA_FILE))

    def config(self, *arguments: str, input: str | None = None) -> None:
        self.cluster.pulumi("config", *arguments, input=input).check()

    def set_settings(self, **settings: object) -> None:
        """Writes settings to the stack's file, as an editor does."""
        file = yaml.safe_load(SETTINGS_FILE.read_text())
        file["config"] |= {f"ant-media-cluster:{key}": value for key, value in settings.items()}
        SETTINGS_FILE.write_text(yaml.safe_dump(file))

    def restore_settings(self) -> bool:
        """Restores the original settings. True if that changes the file."""
        changed = SETTINGS_FILE.read_text() != self._settings
        SETTINGS_FILE.write_text(self._settings)
        return changed

    def preview(self) -> str:
        return self.cluster.pulumi("preview", "--diff").check()

    def update(self, preview: str = "") -> Change:
        before = self.take_snapshot()
        output = self.cluster.update()
        return Change(before, preview, output, self.take_snapshot())

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
        (zone,) = (
            zone
            for zone in self.account.call("route53", "list_hosted_zones")["HostedZones"]
            if zone["Name"] == f"{addresses.ZONE}."
        )
        return zone["Id"].rpartition("/")[2]

    def count_roles_and_secrets(self) -> int:
        kinds = [kind for kind, _ in self.account.list_resources()]
        return sum(kinds.count(kind) for kind in ("role", "instance profile", "secret"))

    def run_on_balancer(self, *command: str, input: str | None = None) -> str:
        return self.cluster.run_on("load-balancer", *command, input=input).check()

    def get_renewal_setting(self, name: str) -> str:
        """Returns a setting with which certbot renews: the ID of its ACME `account`, or its `authenticator`."""
        (value,) = re.findall(rf"(?m)^{name} = (\S+)$", self.run_on_balancer("cat", RENEWAL_CONFIG))
        return value


@pytest.fixture(scope="module")
def stack(cluster: Cluster, account: AwsAccount, operator_client: Client) -> Iterator[Stack]:
    """Restores the settings even if a test fails."""
    stack = Stack(cluster, account, operator_client)
    yield stack
    if stack.restore_settings():
        cluster.update()


# Further names from another ACME server. One of them has no record yet


@pytest.fixture(scope="module")
def other_server(stack: Stack, internet: SandboxInternet) -> Iterator[AcmeServer]:
    with extra_acme_server(internet, 14100) as server:
        stack.trust.load_verify_locations(cadata=server.root)
        yield server


@contextmanager
def foreign_zone(account: AwsAccount) -> Generator[Callable[[str], None]]:
    """Creates a hosted zone that the stack does not manage. Yields a function that creates the record of FOREIGN in it."""
    zone = account.call("route53", "create_hosted_zone", Name=FOREIGN_ZONE, CallerReference=FOREIGN)
    id = zone["HostedZone"]["Id"]

    def change(action: str, address: str) -> None:
        record = {"Name": FOREIGN, "Type": "A", "TTL": 60, "ResourceRecords": [{"Value": address}]}
        batch = {"Changes": [{"Action": action, "ResourceRecordSet": record}]}
        account.call("route53", "change_resource_record_sets", HostedZoneId=id, ChangeBatch=batch)

    created: list[str] = []

    def create(address: str) -> None:
        change("CREATE", address)
        created.append(address)

    yield create
    for address in created:
        change("DELETE", address)
    account.call("route53", "delete_hosted_zone", Id=id)


@dataclass(frozen=True)
class FurtherNames(Change):
    failed: CommandResult
    """The update before the last name had its record."""
    meanwhile: Snapshot
    """After it."""
    hsts_meanwhile: str | None
    """Strict-Transport-Security after it."""
    other_orders: tuple[int, int]
    """Orders at the other server: after the failed update, and in the end."""


@pytest.fixture(scope="module")
def further_names(stack: Stack, other_server: AcmeServer, operator_client: Client) -> FurtherNames:
    before = stack.take_snapshot()
    stack.set_settings(
        acme={
            **stack.acme,
            "names": [WATCH, STUDIO, FOREIGN],
            "directory": other_server.directory,
            "root": other_server.root,
        },
        hstsMaxAge=HSTS_MAX_AGE,
    )
    preview = stack.preview()
    with foreign_zone(stack.account) as create_record:
        failed = stack.cluster.pulumi("up", "--yes", "--skip-preview")
        orders = other_server.orders
        hsts = operator_client.get(f"https://{DOMAIN}/LiveApp/").header("Strict-Transport-Security")
        (address,) = before.records[DOMAIN, "A"]
        create_record(address)
        change = stack.update(preview)
    return FurtherNames(
        before,
        preview,
        change.output,
        change.after,
        failed,
        change.before,
        hsts,
        (orders, other_server.orders),
    )


def test_preview_of_further_names_shows_the_command_and_the_records(
    stack: Stack, further_names: FurtherNames, other_server: AcmeServer
) -> None:
    preview = further_names.preview
    (commands,) = re.findall(
        r'(?m)^ *~ create: "(.*)/issue-certificate.sh (.*)" => "(.*)/issue-certificate.sh (.*)"$', preview
    )
    expected = commands[1].replace(f" {DOMAIN} ", f" {DOMAIN} {WATCH} {STUDIO} {FOREIGN} ")
    assert expected.replace(stack.acme_server.directory, other_server.directory) == commands[3]
    assert list_operations(preview, "+") == [f"load-balancer-record-{name}" for name in (STUDIO, WATCH)]
    assert list_operations(preview, "-") == []
    assert list_operations(preview, "+-") == [
        "service-certificate",
        "service-certificate-in-service",
        *CONFIGURATION,
    ]


def test_name_without_a_record_fails_the_update_after_everything_else_is_applied(
    further_names: FurtherNames,
) -> None:
    failed, before, meanwhile = further_names.failed, further_names.before, further_names.meanwhile
    assert failed.exit_code != 0
    assert (
        "No certificate was requested, because not every name resolves to the load balancer yet."
        in failed.output
    )
    (address,) = before.records[DOMAIN, "A"]
    assert f"  {FOREIGN}. A {address}   (now: nothing)\n" in failed.output
    assert meanwhile.served == before.served
    assert (meanwhile.orders, further_names.other_orders[0]) == (before.orders, 0)
    assert meanwhile.records[STUDIO, "A"] == [address]
    assert further_names.hsts_meanwhile == f"max-age={HSTS_MAX_AGE}"


def test_further_names_are_in_the_zone_and_in_the_certificate_of_the_other_server(
    stack: Stack, operator_client: Client, further_names: FurtherNames
) -> None:
    after = further_names.after
    assert get_dns_names(further_names.before.served) == {DOMAIN}
    assert get_dns_names(after.served) == {DOMAIN, WATCH, STUDIO, FOREIGN}
    for name in (WATCH, STUDIO):
        assert after.records[name, "A"] == after.records[DOMAIN, "A"]
        for port in TLS_PORTS:
            assert stack.get_served(name, port) == after.served
    assert (further_names.orders, further_names.other_orders) == (0, (0, 1))
    assert after.machines == further_names.before.machines
    with pytest.raises(ssl.SSLCertVerificationError):
        operator_client.connect_tls(443, DOMAIN)  # trusts only the sandbox's CA


# dns-01, a wildcard and the original server


@pytest.fixture(scope="module")
def wildcard(stack: Stack, further_names: Change) -> Change:
    stack.set_settings(
        acme={**stack.acme, "names": [WILDCARD], "challenge": "dns-01", "keyType": "rsa"},
    )
    return stack.update()


def test_wildcard_is_validated_through_route_53_and_the_challenge_record_deleted(
    stack: Stack, wildcard: Change, other_server: AcmeServer
) -> None:
    after = wildcard.after
    assert get_dns_names(after.served) == {DOMAIN, WILDCARD}
    assert stack.get_served(f"anything.{DOMAIN}", 5443) == after.served
    assert stack.get_renewal_setting("authenticator") == "dns-route53"
    assert {name for name, kind in after.records if kind in ("A", "TXT")} == {DOMAIN}
    assert (wildcard.orders, other_server.orders) == (1, 1)


def test_removed_name_is_removed_from_the_certificate_and_the_zone(stack: Stack, wildcard: Change) -> None:
    for name in (WATCH, STUDIO):
        assert (name, "A") in wildcard.before.records
        assert (name, "A") not in wildcard.after.records
        with pytest.raises(ssl.SSLCertVerificationError):
            stack.get_served(name)


def test_another_key_type_gets_another_key(wildcard: Change) -> None:
    key = wildcard.before.served.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    key = wildcard.after.served.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == 2048


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


# Loss of the load balancer, and another setting


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
        while not stopping.wait(0.2):
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
    stack.config("set", "--secret", "ant-media-cluster:statisticsPassword", input=STATISTICS_PASSWORD)
    before, account = stack.take_snapshot(), stack.get_renewal_setting("account")
    (address,) = before.records[DOMAIN, "A"]
    stack.account.call("ec2", "terminate_instances", InstanceIds=[before.machines["load-balancer"].id])
    wait_until(lambda: "load-balancer" not in cluster.list_machines())
    with recording_certificates(internet, address) as seen:
        output = cluster.update()
        wait_until(lambda: seen)
    accounts = (account, stack.get_renewal_setting("account"))
    return Replacement(before, "", output, stack.take_snapshot(), seen, accounts)


def test_terminated_balancer_is_recreated_with_its_certificate_and_acme_account(
    cluster: Cluster, replacement: Replacement
) -> None:
    before, after = replacement.before, replacement.after
    assert after.machines["load-balancer"].id != before.machines["load-balancer"].id
    assert after.served == before.served
    assert after.records == before.records
    assert replacement.orders == 0
    assert replacement.accounts[0] == replacement.accounts[1]


def test_new_balancer_never_serves_another_certificate(replacement: Replacement) -> None:
    assert replacement.seen == {replacement.before.served}


def test_strict_transport_security_uses_the_configured_age_and_every_port_accepts_https(
    client: Client, replacement: Replacement
) -> None:
    for place in (f"{DOMAIN}/LiveApp/", f"{DOMAIN}:5443/LiveApp/", f"{DOMAIN}:4444/"):
        assert client.get(f"https://{place}").header("Strict-Transport-Security") == f"max-age={HSTS_MAX_AGE}"
    # A browser that follows the header also uses https on ports that served plain HTTP.
    assert client.get(f"https://{DOMAIN}:5080/LiveApp/").redirect == (301, f"https://{DOMAIN}:5443/LiveApp/")
    assert client.get(f"http://{DOMAIN}:5080/LiveApp/").redirect == (301, f"https://{DOMAIN}:5443/LiveApp/")
    statistics = f"{DOMAIN}:6080/haproxy_stats"
    assert client.get(f"http://{statistics}").redirect == (301, f"https://{statistics}")
    login = basic_auth_header("admin", STATISTICS_PASSWORD)
    assert client.get(f"https://{statistics}", login).status == 200


def test_new_balancer_renews_by_dns_01(stack: Stack, replacement: Replacement) -> None:
    stack.run_on_balancer("sed", "-i", "1i renew_before_expiry = 20 years", RENEWAL_CONFIG)
    stack.run_on_balancer("systemctl", "start", "certbot.service")
    stack.run_on_balancer("sed", "-i", "/^renew_before_expiry/d", RENEWAL_CONFIG)
    before, after = replacement.after, stack.take_snapshot()
    assert after.orders == before.orders + 1
    assert after.served != before.served
    assert get_dns_names(after.served) == {DOMAIN, WILDCARD}
    assert after.records == before.records
    assert stack.get_renewal_setting("account") == replacement.accounts[0]


# A user's certificate


@dataclass(frozen=True)
class Switch(Change):
    certificate: UserCertificate
    refused: CommandResult
    """`up` with the key in plain text."""


@pytest.fixture(scope="module")
def switch(stack: Stack, replacement: Replacement) -> Switch:
    """Switches to a user's certificate with the commands of Pulumi.yaml."""
    cluster, certificate = stack.cluster, issue_user_certificate(DOMAIN)
    assert stack.count_roles_and_secrets() == 3
    key = ("--path", "ant-media-cluster:tls.privateKey")
    stack.config("rm", "ant-media-cluster:acme")
    stack.config("set", "--path", "ant-media-cluster:tls.certificate", input=certificate.chain)
    stack.config("set", "--plaintext", *key, input=certificate.private_key)
    refused = cluster.pulumi("up", "--yes", "--skip-preview")
    stack.config("set", "--secret", *key, input=certificate.private_key)
    stack.trust.load_verify_locations(cadata=certificate.root)
    change = stack.update(stack.preview())
    return Switch(change.before, change.preview, change.output, change.after, certificate, refused)


def test_key_in_plain_text_is_refused_before_anything_changes(switch: Switch) -> None:
    assert switch.refused.exit_code != 0
    assert "Nothing was changed." in switch.refused.output
    message = "ant-media-cluster:tls.privateKey is in plain text: encrypt it with pulumi config set --secret"
    assert message in switch.refused.output
    assert not reports_changes(switch.refused.output)


def test_nothing_but_the_certificate_is_replaced(switch: Switch) -> None:
    """The new load balancer left nothing to do."""
    assert list_operations(switch.preview, "~") == list_operations(switch.preview, "+") == []
    assert list_operations(switch.preview, "+-") == ["service-certificate", "service-endpoints"]


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
        "up with the key in plain text": switch.refused.output,
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
    assert stack.get_renewal_setting("authenticator") == "standalone"
    assert isinstance(restored.after.served.public_key(), ec.EllipticCurvePublicKey)
    assert get_dns_names(restored.after.served) == {DOMAIN}
    assert restored.orders == 1
    assert stack.get_renewal_setting("account") == replacement.accounts[0]
    assert restored.after.records == further_names.before.records
    assert stack.count_roles_and_secrets() == 3
    stack.cluster.pulumi("preview", "--expect-no-changes").check()
    # HAProxy may find a server down for a moment.
    wait_until(lambda: stack.cluster.run("make", "status").exit_code == 0)
