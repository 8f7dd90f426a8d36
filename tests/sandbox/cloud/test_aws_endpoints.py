"""Instance metadata, role credentials and AWS endpoints, used from machines. Needs root and the sandbox's packages."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dnslib import DNSRecord

from sandbox.cloud import addresses
from tests.sandbox.cloud.local_cloud import Machine, Sandbox, client, wait_until

METADATA = f"http://{addresses.METADATA}/latest"
ROLE, SECRET = "balancer", "letsencrypt"
CHALLENGE = f"_acme-challenge.{addresses.DOMAIN}"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}


def curl(machine: Machine, *arguments: str) -> tuple[int, str]:
    """Returns status and body; status 0 if there is no response."""
    command = shlex.join(["curl", "-s", "-m60", "-w", "\n%{http_code}", *arguments])
    text, _, status = machine.run("sh", "-c", f"{command} || true").rpartition("\n")
    return int(status), text


def token(machine: Machine, *headers: str) -> str:
    ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60"
    status, text = curl(machine, "-X", "PUT", "-H", ttl, *headers, f"{METADATA}/api/token")
    assert status == 200
    return text


def metadata(machine: Machine, path: str, key: str | None = None) -> tuple[int, str]:
    header = f"X-aws-ec2-metadata-token: {key or token(machine)}"
    return curl(machine, "-H", header, f"{METADATA}/{path}")


@dataclass
class Role:
    """The role of machine `front`. It may read and write one secret and the TXT records of one name in one zone."""

    machine: Machine
    zone: str
    other_zone: str

    def credentials(self) -> dict[str, str]:
        status, text = metadata(self.machine, f"meta-data/iam/security-credentials/{ROLE}")
        assert status == 200
        given: dict[str, str] = json.loads(text)
        return given

    def secrets(
        self, operation: str, parameters: dict[str, str], without: Sequence[str] = (), **other: str
    ) -> tuple[int, Any]:
        """Calls Secrets Manager with the role's credentials, `other` replacing some and `without` headers."""
        given = self.credentials() | other
        headers = {
            "x-amz-target": f"secretsmanager.{operation}",
            "content-type": "application/x-amz-json-1.1",
            "x-amz-security-token": given["Token"],
        }
        status, text = curl(
            self.machine,
            *("--user", f"{given['AccessKeyId']}:{given['SecretAccessKey']}"),
            *("--aws-sigv4", f"aws:amz:{addresses.REGION}:secretsmanager"),
            *(f"-H{name}: {value}" for name, value in headers.items() if name not in without),
            *("-d", json.dumps(parameters), f"https://{addresses.SECRETS_MANAGER_NAME}/"),
        )
        return status, json.loads(text)


@pytest.fixture(scope="module")
def role(sandbox: Sandbox, ec2: Any, pair: tuple[Machine, Machine]) -> Role:
    front, _ = pair
    iam, route53 = client("iam"), client("route53")

    def create() -> Role:
        zone, other = (
            route53.create_hosted_zone(Name=name, CallerReference=name)["HostedZone"]["Id"].rpartition("/")[2]
            for name in (f"{addresses.DOMAIN}.", "other.test.")
        )
        secret = client("secretsmanager").create_secret(Name=SECRET, SecretString="nothing yet")["ARN"]
        client("secretsmanager").create_secret(Name="another", SecretString="somebody else's")
        change = "route53:ChangeResourceRecordSets"
        statements = [
            {
                "Effect": "Allow",
                "Action": ["secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue"],
                "Resource": secret,
            },
            {"Effect": "Allow", "Action": "route53:ListHostedZones", "Resource": "*"},
            {"Effect": "Allow", "Action": "route53:GetChange", "Resource": "arn:aws:route53:::change/*"},
            {
                "Effect": "Allow",
                "Action": change,
                "Resource": f"arn:aws:route53:::hostedzone/{zone}",
                "Condition": {
                    "ForAllValues:StringEquals": {
                        f"{change}NormalizedRecordNames": [CHALLENGE],
                        f"{change}RecordTypes": ["TXT"],
                    }
                },
            },
        ]
        iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(TRUST))
        iam.put_role_policy(
            RoleName=ROLE,
            PolicyName="certificate",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statements}),
        )
        iam.create_instance_profile(InstanceProfileName="profile")
        iam.add_role_to_instance_profile(InstanceProfileName="profile", RoleName=ROLE)
        ec2.associate_iam_instance_profile(InstanceId=front.id, IamInstanceProfile={"Name": "profile"})
        return Role(front, zone, other)

    return sandbox.call_on_internet(create)


def test_metadata_requires_the_machines_own_token(pair: tuple[Machine, Machine]) -> None:
    front, back = pair
    assert curl(front, f"{METADATA}/meta-data/instance-id") == (401, "")
    assert metadata(front, "meta-data/instance-id", token(back)) == (401, "")
    assert curl(front, "-X", "PUT", f"{METADATA}/api/token")[0] == 400
    forwarded = ("-H", "X-Forwarded-For: 192.0.2.1", "-H", "X-aws-ec2-metadata-token-ttl-seconds: 60")
    assert curl(front, "-X", "PUT", *forwarded, f"{METADATA}/api/token")[0] == 403


def test_metadata_describes_the_requesting_machine(pair: tuple[Machine, Machine]) -> None:
    front, back = pair
    description, key = front.describe(), token(front)
    expected = {
        "instance-id": front.id,
        "ami-id": description["ImageId"],
        "instance-type": description["InstanceType"],
        "hostname": front.run("hostname", "--fqdn").strip(),
        "local-ipv4": front.private,
        "public-ipv4": front.public,
        "placement/region": addresses.REGION,
        "placement/availability-zone": description["Placement"]["AvailabilityZone"],
        "placement/": "availability-zone\nregion",
    }
    assert {path: metadata(front, f"meta-data/{path}", key)[1] for path in expected} == expected
    assert metadata(front, "meta-data/tags", key) == (404, "")
    assert front.run("cloud-id") == "nocloud\n"
    identity = json.loads(metadata(back, "dynamic/instance-identity/document")[1])
    assert (identity["instanceId"], identity["region"]) == (back.id, addresses.REGION)


def test_machine_without_role_has_no_credentials(role: Role, pair: tuple[Machine, Machine]) -> None:
    _, back = pair
    assert metadata(back, "meta-data/iam/security-credentials/") == (404, "")
    assert metadata(back, f"meta-data/iam/security-credentials/{ROLE}") == (404, "")
    assert metadata(role.machine, "meta-data/iam/security-credentials/") == (200, ROLE)


def test_role_reads_and_writes_only_its_secret(role: Role) -> None:
    status, _ = role.secrets("PutSecretValue", {"SecretId": SECRET, "SecretString": "an archive: ä"})
    assert status == 200
    status, answer = role.secrets("GetSecretValue", {"SecretId": SECRET})
    assert (status, answer["SecretString"]) == (200, "an archive: ä")
    for operation, secret in (("GetSecretValue", "another"), ("DeleteSecret", SECRET)):
        status, answer = role.secrets(operation, {"SecretId": secret})
        assert (status, answer["__type"]) == (400, "AccessDeniedException")
        assert f"assumed-role/{ROLE}/{role.machine.id} is not authorized" in answer["Message"]


def test_wrong_signature_or_token_is_rejected(role: Role) -> None:
    def error_type(without: Sequence[str] = (), **other: str) -> str:
        status, answer = role.secrets("GetSecretValue", {"SecretId": SECRET}, without, **other)
        assert status == 400
        error: str = answer["__type"]
        return error

    assert error_type(SecretAccessKey="x") == "InvalidSignatureException"
    assert error_type(Token="x") == "UnrecognizedClientException"
    assert error_type(without=["x-amz-security-token"]) == "UnrecognizedClientException"
    assert error_type(AccessKeyId="test", SecretAccessKey="test") == "UnrecognizedClientException"
    status, text = curl(role.machine, f"https://{addresses.ROUTE53_NAME}/2013-04-01/hostedzone")
    assert status == 403
    assert "<Code>MissingAuthenticationToken</Code>" in text


CHANGE = """\
import boto3, botocore.exceptions, json, sys
given, changes = json.load(sys.stdin)
session = boto3.Session(given["AccessKeyId"], given["SecretAccessKey"], given["Token"])
route53 = session.client("route53")
for zone, name, kind, values in changes:
    record = {"Name": name, "Type": kind, "TTL": 10, "ResourceRecords": [{"Value": value} for value in values]}
    batch = {"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]}
    try:
        answer = route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=batch)
        print(route53.get_change(Id=answer["ChangeInfo"]["Id"])["ChangeInfo"]["Status"])
    except botocore.exceptions.ClientError as error:
        print(error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"])
"""


def test_role_changes_only_its_record_and_dns_answers_at_once(
    sandbox: Sandbox, role: Role, tmp_path: Path
) -> None:
    text = ['"one"', '"two words" "and more"']
    changes = [
        (role.zone, CHALLENGE, "TXT", text),
        (role.zone, f"{CHALLENGE}.", "TXT", text),
        (role.zone, CHALLENGE, "A", ["198.51.100.9"]),
        (role.zone, addresses.DOMAIN, "TXT", text),
        (role.zone, f"_acme-challenge.www.{addresses.DOMAIN}", "TXT", text),
        (role.other_zone, CHALLENGE, "TXT", text),
    ]
    (tmp_path / "input").write_text(json.dumps([role.credentials(), changes]))
    script = f"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true {sys.executable} -c {shlex.quote(CHANGE)} <{tmp_path}/input"
    assert sandbox("exec", "--", "sh", "-c", script).splitlines() == ["INSYNC"] * 2 + ["AccessDenied 403"] * 4

    def ask() -> DNSRecord:
        return DNSRecord.parse(DNSRecord.question(CHALLENGE, "TXT").send(addresses.DNS, timeout=60))

    answer = sandbox.call_on_internet(ask)
    assert sorted(b"".join(record.rdata.data) for record in answer.rr) == [b"one", b"two wordsand more"]


def test_deleted_records_can_be_created_again_in_any_order(sandbox: Sandbox, role: Role) -> None:
    def change(action: str, name: str) -> None:
        record = {"Name": name, "Type": "A", "TTL": 60, "ResourceRecords": [{"Value": "198.51.100.9"}]}
        changes = [{"Action": action, "ResourceRecordSet": record}]
        client("route53").change_resource_record_sets(
            HostedZoneId=role.other_zone, ChangeBatch={"Changes": changes}
        )

    for action in ("CREATE", "DELETE", "CREATE"):
        for name in ("b.other.test", "a.other.test"):
            sandbox.call_on_internet(lambda name=name, action=action: change(action, name))


BUCKET = "recordings"
BUCKET_URL = f"https://{BUCKET}.{addresses.S3_NAME}"


@dataclass
class Uploader:
    """Machine `front` with the access key of a user. The user may list one bucket, and read and write its objects."""

    machine: Machine
    access_key: str
    secret_key: str

    def request(
        self, path: str, *arguments: str, user: str = "", bucket: str = BUCKET_URL
    ) -> tuple[int, str]:
        """Returns the status and the code of an error, empty for none."""
        status, text = curl(
            self.machine,
            *("--user", user or f"{self.access_key}:{self.secret_key}"),
            *("--aws-sigv4", f"aws:amz:{addresses.REGION}:s3"),
            *(*arguments, f"{bucket}/{path}"),
        )
        return status, text.partition("<Code>")[2].partition("<")[0]


@pytest.fixture(scope="module")
def uploader(sandbox: Sandbox, pair: tuple[Machine, Machine]) -> Uploader:
    iam, s3 = client("iam"), client("s3")
    statements = [
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{BUCKET}"},
        {
            "Effect": "Allow",
            "Action": ["s3:PutObject", "s3:PutObjectAcl", "s3:GetObject"],
            "Resource": f"arn:aws:s3:::{BUCKET}/*",
        },
    ]

    def create() -> Uploader:
        where = {"LocationConstraint": addresses.REGION}
        for name in (BUCKET, "another"):
            s3.create_bucket(Bucket=name, CreateBucketConfiguration=where)
        iam.create_user(UserName="uploader")
        iam.put_user_policy(
            UserName="uploader",
            PolicyName="upload",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statements}),
        )
        key = iam.create_access_key(UserName="uploader")["AccessKey"]
        return Uploader(pair[0], key["AccessKeyId"], key["SecretAccessKey"])

    return sandbox.call_on_internet(create)


def test_user_writes_only_to_its_bucket(sandbox: Sandbox, uploader: Uploader) -> None:
    headers = ("-H", "x-amz-acl: bucket-owner-full-control", "-H", "content-type: video/mp4")
    put = ("-X", "PUT", *headers, "-d", "a recording")
    assert uploader.request("streams/a%20b.mp4", *put) == (200, "")
    stored = sandbox.call_on_internet(
        lambda: client("s3").get_object(Bucket=BUCKET, Key="streams/a b.mp4")["Body"].read()
    )
    assert stored == b"a recording"
    assert uploader.request("streams/a%20b.mp4", "--head") == (200, "")
    assert uploader.request("streams/none.mp4", "--head") == (404, "")
    assert uploader.request("?list-type=2&prefix=streams") == (200, "")
    other = f"https://another.{addresses.S3_NAME}"
    assert uploader.request("a.mp4", *put, bucket=other) == (403, "AccessDenied")
    assert uploader.request("streams/a%20b.mp4", "-X", "DELETE") == (403, "AccessDenied")
    assert uploader.request("streams/a.mp4?uploads", "-X", "POST") == (403, "AccessDenied")


def test_bucket_without_acls_refuses_those_of_others(uploader: Uploader) -> None:
    for acl in ("public-read", "private"):
        put = ("-X", "PUT", "-H", f"x-amz-acl: {acl}", "-d", "a recording")
        assert uploader.request("streams/a.mp4", *put) == (400, "AccessControlListNotSupported")


def test_wrong_and_empty_access_keys_are_rejected(sandbox: Sandbox, uploader: Uploader) -> None:
    def error_code(user: str) -> tuple[int, str]:
        return uploader.request("streams/a.mp4", "-X", "PUT", "-d", "x", user=user)

    assert error_code(f"{uploader.access_key}:wrong") == (403, "SignatureDoesNotMatch")
    assert error_code("AKIAUNKNOWN:x") == (403, "InvalidAccessKeyId")
    # With empty s3AccessKey and s3SecretKey, Ant Media Server signs with this.
    assert error_code(":") == (400, "AuthorizationHeaderMalformed")
    iam = client("iam")
    key = {"UserName": "uploader", "AccessKeyId": uploader.access_key}
    sandbox.call_on_internet(lambda: iam.update_access_key(**key, Status="Inactive"))
    assert error_code("") == (403, "InvalidAccessKeyId")
    sandbox.call_on_internet(lambda: iam.update_access_key(**key, Status="Active"))


def test_metadata_works_after_a_restart(ec2: Any, pair: tuple[Machine, Machine]) -> None:
    _, back = pair

    def process() -> int | None:
        return (back.sandbox.find_machine(back.id) or {}).get("process")

    before = process()
    back.sandbox.call_on_internet(lambda: ec2.reboot_instances(InstanceIds=[back.id]))
    wait_until(lambda: process() not in (None, before))
    wait_until(back.answers)
    assert metadata(back, "meta-data/instance-id") == (200, back.id)


def test_no_packet_was_rejected_by_the_egress_filter(sandbox: Sandbox, role: Role) -> None:
    assert sandbox.status()["escaped_destinations"] == []


def test_metadata_is_reachable_only_through_the_own_gateway(
    sandbox: Sandbox, pair: tuple[Machine, Machine]
) -> None:
    front, back = pair

    def request_through(gateway: str, seconds: int = 2) -> str:
        route = f"{addresses.METADATA} via {gateway}"
        request = f"curl -s -m{seconds} -o /dev/null -w '%{{http_code}}' {METADATA}/"
        return f"ip route add {route} && {{ {request} || true; ip route del {route}; }}"

    assert back.run("sh", "-c", request_through("10.0.32.1", 60)) == "401"
    assert back.run("sh", "-c", request_through(front.private)) == "000"
    assert sandbox("exec", "--", "sh", "-c", request_through("100.64.0.2")) == "000"
