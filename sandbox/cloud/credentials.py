"""Temporary credentials of instance roles: the metadata service issues them, the AWS endpoints verify them."""

import secrets
import string
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

LIFETIME = timedelta(hours=6)
RENEWAL_MARGIN = timedelta(minutes=15)
"""New credentials are issued this long before the current ones expire."""


@dataclass(frozen=True)
class Credentials:
    instance: str
    role: str
    access_key: str
    secret_key: str
    token: str
    issued: datetime
    expires: datetime


class CredentialIssuer:
    """Issues credentials and remembers all that it has issued."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._current: dict[tuple[str, str], Credentials] = {}
        self._issued: dict[str, Credentials] = {}

    def issue(self, instance: str, role: str) -> Credentials:
        """Returns the current credentials of an instance; issues new ones shortly before they expire."""
        now = self._now()
        with self._lock:
            known = self._current.get((instance, role))
            if known and now < known.expires - RENEWAL_MARGIN:
                return known
            access_key = "ASIA" + "".join(
                secrets.choice(string.ascii_uppercase + "234567") for _ in range(16)
            )
            new = Credentials(
                instance=instance,
                role=role,
                access_key=access_key,
                secret_key=secrets.token_urlsafe(30),
                token=secrets.token_urlsafe(300),
                issued=now,
                expires=now + LIFETIME,
            )
            self._current[instance, role] = self._issued[access_key] = new
            return new

    def find(self, access_key: str) -> Credentials | None:
        """Returns the credentials with this access key, including expired ones."""
        return self._issued.get(access_key)
