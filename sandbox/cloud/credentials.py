"""The passing credentials of instance roles: given out by the metadata service, recognised by the AWS endpoints."""

import secrets
import string
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

LIFETIME = timedelta(hours=6)
OVERLAP = timedelta(minutes=15)
"""New ones are to be had this long before the old ones expire."""


@dataclass(frozen=True)
class Credentials:
    instance: str
    role: str
    access_key: str
    secret_key: str
    token: str
    issued: datetime
    expires: datetime


class Issuer:
    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._current: dict[tuple[str, str], Credentials] = {}
        self._issued: dict[str, Credentials] = {}

    def current(self, instance: str, role: str) -> Credentials:
        """What the instance is to use now: the same until shortly before it expires."""
        now = self._now()
        with self._lock:
            known = self._current.get((instance, role))
            if known and now < known.expires - OVERLAP:
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
        """Also those that have expired."""
        return self._issued.get(access_key)
