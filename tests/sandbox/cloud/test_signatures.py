"""How the local cloud verifies request signatures."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore import credentials as botocore_credentials
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from sandbox.cloud import signatures
from sandbox.cloud.credentials import CredentialIssuer, Credentials
from sandbox.cloud.signatures import ErrorCode, RefusedError, Request

SCOPE = "eu-west-1/secretsmanager"


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def issuer(now: datetime) -> CredentialIssuer:
    return CredentialIssuer(lambda: now)


@pytest.fixture
def credentials(issuer: CredentialIssuer) -> Credentials:
    return issuer.issue("i-1", "balancer")


def sign(credentials: Credentials, **headers_to_add: str) -> Request:
    request = AWSRequest(
        "POST",
        "https://secretsmanager.eu-west-1.amazonaws.com/a%20b?two=2&one=1",
        headers={"X-Amz-Target": "secretsmanager.GetSecretValue", **headers_to_add},
        data=b"{}",
    )
    signer = botocore_credentials.Credentials(
        credentials.access_key, credentials.secret_key, credentials.token
    )
    SigV4Auth(signer, "secretsmanager", "eu-west-1").add_auth(request)
    headers = {name.lower(): value for name, value in request.headers.items()}
    host = {"host": "secretsmanager.eu-west-1.amazonaws.com"}
    return Request("POST", "/a%20b?two=2&one=1", headers | host, b"{}")


def error_code(
    request: Request, issuer: CredentialIssuer, now: datetime, scope: str = SCOPE
) -> ErrorCode | None:
    try:
        signatures.verify(request, scope, issuer.find, now)
    except RefusedError as refused:
        return refused.code
    return None


def test_verify_returns_the_credentials_that_signed(
    now: datetime, issuer: CredentialIssuer, credentials: Credentials
) -> None:
    assert signatures.verify(sign(credentials), SCOPE, issuer.find, now) == credentials


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("method", "GET"),
        ("target", "/a%20b?two=2&one=2"),
        ("body", b'{"SecretId": "another"}'),
        ("x-amz-target", "secretsmanager.PutSecretValue"),
        ("x-amz-added", "after signing"),
    ],
)
def test_changed_request_is_rejected(
    now: datetime, issuer: CredentialIssuer, credentials: Credentials, part: str, value: Any
) -> None:
    request = sign(credentials)
    change = {"headers": {**request.headers, part: value}} if part.startswith("x-") else {part: value}
    changed = dataclasses.replace(request, **change)
    assert error_code(changed, issuer, now) is ErrorCode.WRONG_SIGNATURE


def test_signed_digest_must_match_the_body(
    now: datetime, issuer: CredentialIssuer, credentials: Credentials
) -> None:
    request = sign(credentials, **{"X-Amz-Content-SHA256": "0" * 64})
    assert error_code(request, issuer, now) is ErrorCode.WRONG_SIGNATURE


def test_signature_is_valid_for_one_service_and_15_minutes(
    now: datetime, issuer: CredentialIssuer, credentials: Credentials
) -> None:
    request = sign(credentials)
    assert error_code(request, issuer, now, "us-east-1/route53") is ErrorCode.WRONG_SIGNATURE
    for skew in (timedelta(minutes=14), -timedelta(minutes=14)):
        assert error_code(request, issuer, now + skew) is None
    for skew in (timedelta(minutes=16), -timedelta(minutes=16)):
        assert error_code(request, issuer, now + skew) is ErrorCode.WRONG_SIGNATURE


def test_expired_token_is_rejected(issuer: CredentialIssuer, credentials: Credentials) -> None:
    assert (
        error_code(sign(credentials), issuer, credentials.expires + timedelta(seconds=1))
        is ErrorCode.EXPIRED_TOKEN
    )


def test_malformed_authorization_header_is_rejected(
    now: datetime, issuer: CredentialIssuer, credentials: Credentials
) -> None:
    request = sign(credentials)
    for authorization, reason in (
        ("", ErrorCode.UNSIGNED),
        ("Basic YTpi", ErrorCode.INCOMPLETE),
        (request.headers["authorization"].replace("Signature=", "Other="), ErrorCode.INCOMPLETE),
        (request.headers["authorization"].replace(credentials.access_key, "AKIA"), ErrorCode.UNKNOWN_TOKEN),
    ):
        changed = dataclasses.replace(request, headers={**request.headers, "authorization": authorization})
        assert error_code(changed, issuer, now) is reason
