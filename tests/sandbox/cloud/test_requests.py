"""How the local cloud's AWS judges requests: credentials that pass, signatures, policies."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as SignersCredentials

from sandbox.cloud import iam_policies, signatures
from sandbox.cloud.aws_endpoints import normalize_record_name
from sandbox.cloud.credentials import LIFETIME, RENEWAL_MARGIN, CredentialIssuer, Credentials
from sandbox.cloud.iam_policies import AccessRequest
from sandbox.cloud.signatures import ErrorCode, RefusedError, Request

SECOND = timedelta(seconds=1)
SCOPE = "eu-west-1/secretsmanager"


class Clock:
    def __init__(self) -> None:
        self.time = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer(clock: Clock) -> CredentialIssuer:
    return CredentialIssuer(clock)


@pytest.fixture
def given(issuer: CredentialIssuer) -> Credentials:
    return issuer.issue("i-1", "balancer")


def test_credentials_change_before_they_expire_and_the_old_ones_stay_good(
    clock: Clock, issuer: CredentialIssuer, given: Credentials
) -> None:
    clock.time = given.expires - RENEWAL_MARGIN - SECOND
    assert issuer.issue("i-1", "balancer") == given
    assert issuer.issue("i-2", "balancer").access_key != given.access_key
    clock.time = given.expires - RENEWAL_MARGIN
    renewed = issuer.issue("i-1", "balancer")
    assert renewed.access_key != given.access_key
    assert renewed.expires == clock.time + LIFETIME
    assert issuer.find(given.access_key) == given


def signed(given: Credentials, **further: str) -> Request:
    request = AWSRequest(
        "POST",
        "https://secretsmanager.eu-west-1.amazonaws.com/a%20b?two=2&one=1",
        headers={"X-Amz-Target": "secretsmanager.GetSecretValue", **further},
        data=b"{}",
    )
    signer = SignersCredentials(given.access_key, given.secret_key, given.token)
    SigV4Auth(signer, "secretsmanager", "eu-west-1").add_auth(request)
    headers = {name.lower(): value for name, value in request.headers.items()}
    host = {"host": "secretsmanager.eu-west-1.amazonaws.com"}
    return Request("POST", "/a%20b?two=2&one=1", headers | host, b"{}")


def refusal(
    request: Request, issuer: CredentialIssuer, now: datetime, scope: str = SCOPE
) -> ErrorCode | None:
    try:
        signatures.verify(request, scope, issuer.find, now)
    except RefusedError as refused:
        return refused.code
    return None


def test_a_request_is_whose_signature_it_bears(
    clock: Clock, issuer: CredentialIssuer, given: Credentials
) -> None:
    assert signatures.verify(signed(given), SCOPE, issuer.find, clock()) == given


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("method", "GET"),
        ("target", "/a%20b?two=2&one=2"),
        ("body", b'{"SecretId": "another"}'),
        ("x-amz-target", "secretsmanager.PutSecretValue"),
        ("x-amz-added", "after it was signed"),
    ],
)
def test_a_request_that_was_changed_is_refused(
    clock: Clock, issuer: CredentialIssuer, given: Credentials, part: str, value: Any
) -> None:
    request = signed(given)
    change = {"headers": {**request.headers, part: value}} if part.startswith("x-") else {part: value}
    changed = dataclasses.replace(request, **change)
    assert refusal(changed, issuer, clock()) is ErrorCode.WRONG_SIGNATURE


def test_a_signed_digest_is_the_bodys(clock: Clock, issuer: CredentialIssuer, given: Credentials) -> None:
    request = signed(given, **{"X-Amz-Content-SHA256": "0" * 64})
    assert refusal(request, issuer, clock()) is ErrorCode.WRONG_SIGNATURE


def test_a_signature_is_good_for_one_service_and_a_quarter_of_an_hour(
    clock: Clock, issuer: CredentialIssuer, given: Credentials
) -> None:
    request = signed(given)
    assert refusal(request, issuer, clock(), "us-east-1/route53") is ErrorCode.WRONG_SIGNATURE
    for late in (timedelta(minutes=14), -timedelta(minutes=14)):
        assert refusal(request, issuer, clock() + late) is None
    for late in (timedelta(minutes=16), -timedelta(minutes=16)):
        assert refusal(request, issuer, clock() + late) is ErrorCode.WRONG_SIGNATURE


def test_a_token_that_expired_is_refused(issuer: CredentialIssuer, given: Credentials) -> None:
    assert refusal(signed(given), issuer, given.expires + SECOND) is ErrorCode.EXPIRED_TOKEN


def test_what_is_not_a_signature_at_all_is_refused(
    clock: Clock, issuer: CredentialIssuer, given: Credentials
) -> None:
    request = signed(given)
    for authorization, reason in (
        ("", ErrorCode.UNSIGNED),
        ("Basic YTpi", ErrorCode.INCOMPLETE),
        (request.headers["authorization"].replace("Signature=", "Autograph="), ErrorCode.INCOMPLETE),
        (request.headers["authorization"].replace(given.access_key, "AKIA"), ErrorCode.UNKNOWN_TOKEN),
    ):
        changed = dataclasses.replace(request, headers={**request.headers, "authorization": authorization})
        assert refusal(changed, issuer, clock()) is reason


CHANGE = AccessRequest(
    "route53:ChangeResourceRecordSets",
    "arn:aws:route53:::hostedzone/Z1",
    {"route53:ChangeResourceRecordSetsRecordTypes": ["TXT", "TXT"]},
)
TYPES = "route53:ChangeResourceRecordSetsRecordTypes"


def statement(**changes: Any) -> dict[str, Any]:
    basis = {"Effect": "Allow", "Action": CHANGE.action, "Resource": CHANGE.resource}
    return {key: value for key, value in {**basis, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([statement()], True),
        ([], False),
        ([statement(Action="route53:*")], True),
        ([statement(Action=["route53:GetChange", "ROUTE53:change*Sets"])], True),
        ([statement(Action="route53:GetChange")], False),
        ([statement(Resource="arn:aws:route53:::hostedzone/*")], True),
        ([statement(Resource="arn:aws:route53:::hostedzone/Z?")], True),
        ([statement(Resource="arn:aws:route53:::hostedzone/z1")], False),
        ([statement(), statement(Effect="Deny", Action="*", Resource="*")], False),
        ([statement(Condition={"ForAllValues:StringEquals": {TYPES: ["A", "TXT"]}})], True),
        ([statement(Condition={"ForAllValues:StringEquals": {TYPES.lower(): "TXT"}})], True),
        ([statement(Condition={"ForAllValues:StringEquals": {TYPES: "T*"}})], False),
        ([statement(Condition={"ForAllValues:StringEquals": {TYPES: "A"}})], False),
    ],
)
def test_policies_as_iam_reads_them(statements: list[dict[str, Any]], expected: bool) -> None:
    assert iam_policies.is_allowed([{"Statement": statements}], CHANGE) is expected


@pytest.mark.parametrize(
    "strange",
    [
        statement(Condition={"StringEquals": {TYPES: "TXT"}}),
        statement(Condition={"ForAllValues:StringLike": {TYPES: "T*"}}),
        statement(Condition={"ForAllValues:StringEqualsIgnoreCase": {TYPES: "TXT"}}),
        statement(Condition={"ForAllValues:StringEquals": {"aws:SourceIp": "TXT"}}),
        statement(Resource=None, NotResource="arn:aws:route53:::hostedzone/Z2"),
    ],
)
def test_what_is_not_known_of_iam_is_refused_with_a_word_in_the_log(
    strange: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert not iam_policies.is_allowed([{"Statement": [statement(), strange]}], CHANGE)
    assert "the local cloud does not support" in capsys.readouterr().err


def test_one_other_type_among_the_changes_spoils_them_all() -> None:
    mixed = dataclasses.replace(CHANGE, context={TYPES: ["TXT", "A"]})
    only_txt = statement(Condition={"ForAllValues:StringEquals": {TYPES: "TXT"}})
    assert not iam_policies.is_allowed([{"Statement": [only_txt]}], mixed)


def test_records_names_as_iam_compares_them() -> None:
    assert (
        normalize_record_name("_ACME-Challenge.Live.ant-media.test.") == "_acme-challenge.live.ant-media.test"
    )
    assert normalize_record_name("*.live.ant-media.test") == r"\052.live.ant-media.test"
