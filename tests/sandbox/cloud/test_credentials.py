"""The temporary credentials of instance roles."""

from datetime import UTC, datetime, timedelta

from sandbox.cloud.credentials import LIFETIME, RENEWAL_MARGIN, CredentialIssuer


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.time = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.time


def test_credentials_are_renewed_before_expiry_and_old_ones_stay_valid() -> None:
    clock = Clock()
    issuer = CredentialIssuer(clock)
    first = issuer.issue("i-1", "balancer")
    clock.time = first.expires - RENEWAL_MARGIN - timedelta(seconds=1)
    assert issuer.issue("i-1", "balancer") == first
    assert issuer.issue("i-2", "balancer").access_key != first.access_key
    clock.time = first.expires - RENEWAL_MARGIN
    renewed = issuer.issue("i-1", "balancer")
    assert renewed.access_key != first.access_key
    assert renewed.expires == clock.time + LIFETIME
    assert issuer.find(first.access_key) == first
