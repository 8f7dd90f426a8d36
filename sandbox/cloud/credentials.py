"""Credentials of instance roles, which the metadata service issues, and of IAM users. The AWS endpoints verify them."""

import secrets
import string
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sandbox.cloud import addresses

LIFETIME = timedelta(hours=6)
RENEWAL_MARGIN = timedelta(minutes=15)
"""New credentials are issued this long before the current ones expire."""

ALWAYS, NEVER = (moment.replace(tzinfo=UTC) for moment in (datetime.min, datetime.max))


@dataclass(frozen=True)
class Credentials:
    """Temporary credentials of a role on an instance, or the access key of a user."""

    access_key: str
    secret_key: str
    token: str = ""
    """Empty for a user."""
    instance: str = ""
    role: str = ""
    user: str = ""
    issued: datetime = ALWAYS
    expires: datetime = NEVER

    @property
    def principal(self) -> str:
        """The ARN that IAM shows in errors."""
        if self.user:
            return f"arn:aws:iam::{addresses.ACCOUNT}:user/{self.user}"
        return f"arn:aws:sts::{addresses.ACCOUNT}:assumed-role/{self.role}/{self.instance}"


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


def find_user_key(access_key: str) -> Credentials | None:
    """Returns the credentials of an IAM user by an active access key. IAM returns a secret only once, so it is read from moto."""
    from moto.iam.models import iam_backends  # after moto_corrections.apply

    for user in iam_backends[addresses.ACCOUNT]["aws"].users.values():
        for key in user.access_keys:
            if key.access_key_id == access_key and key.status == "Active":
                return Credentials(access_key, key.secret_access_key, user=user.name)
    return None
