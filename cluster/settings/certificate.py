"""Models the settings of the certificate: issued by an ACME server, or given by the user."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Literal

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import Certificate
from pydantic import AfterValidator, SecretStr, StrictStr, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from cluster.settings import certificate_checks as checks
from cluster.settings import rules
from cluster.settings.pem import format_certificates, format_private_key, read_certificates, read_private_key
from cluster.settings.rules import MODEL_CONFIG, Email, Problem, raise_problems

# HAProxy's runtime API loads a certificate by one command of at most 16 KiB. Leaves room for the command's other words.
_MAX_PEM_BYTES = 15_000
# The endpoint check gets the CA certificates in one environment variable. Linux allows 128 KiB for each.
_MAX_ROOTS_BYTES = 100_000


@dataclass(frozen=True, kw_only=True, config=MODEL_CONFIG)
class AcmeSettings:
    """A certificate from an ACME server."""

    email: Email
    directory: Annotated[StrictStr, AfterValidator(rules.validate_acme_directory)] = "production"
    """URL of the ACME directory."""
    root: StrictStr | None = None
    """PEM text of CA certificates to trust for the ACME server, in addition to the system's."""
    key_type: Literal["ecdsa", "rsa"] = "ecdsa"
    challenge: Literal["http-01", "dns-01"] = "http-01"
    # Let's Encrypt allows 100 names in a certificate, including the domain.
    names: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(rules.validate_certificate_name)], ...],
        AfterValidator(rules.validate_unique_items),
        rules.at_most_items(99),
    ] = ()
    """Names of the certificate besides the domain."""

    @field_validator("root")
    @classmethod
    def _validate_root(cls, root: str | None, info: ValidationInfo) -> str | None:
        if root is None:
            return None
        certificates = read_certificates(root)
        raise_problems(
            Problem((), root, message)
            for message in checks.find_root_problems(certificates, current_time(info))
        )
        text = format_certificates(certificates)
        if len(text) > _MAX_ROOTS_BYTES:
            raise ValueError(
                f"the CA certificates have {len(text)} bytes, but the endpoint check accepts {_MAX_ROOTS_BYTES}: "
                "give only those of the ACME server"
            )
        return text

    @field_validator("names")
    @classmethod
    def _validate_wildcards(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("challenge") == "http-01":
            message = "a wildcard needs dns-01: set acme.challenge to dns-01, or give each host name"
            raise_problems(
                Problem((index,), name, message) for index, name in enumerate(names) if name.startswith("*.")
            )
        return names


@dataclass(frozen=True, config=MODEL_CONFIG)
class TlsSettings:
    """A certificate of the user. `Settings` validates it, because that needs the domain."""

    certificate: StrictStr
    """PEM text as the user gave it: the server's certificate, then its issuers."""
    private_key: SecretStr

    @property
    def pem(self) -> SecretStr:
        """The PEM text that HAProxy loads: the chain without a root, then the private key."""
        chain = format_certificates(checks.remove_root(read_certificates(self.certificate)))
        key = read_private_key(self.private_key.get_secret_value())
        return SecretStr(chain + format_private_key(key))

    @property
    def fingerprint(self) -> str:
        """SHA-256 fingerprint of the server's certificate, formatted as browsers and openssl print it."""
        return self._leaf.fingerprint(SHA256()).hex(":").upper()

    @property
    def not_after(self) -> datetime:
        """When the server's certificate expires."""
        return self._leaf.not_valid_after_utc

    @property
    def _leaf(self) -> Certificate:
        return read_certificates(self.certificate)[0]

    def find_problems(self, domain: str | None, now: datetime) -> Iterator[Problem]:
        """Yields all problems of the certificate and the key.

        The names of the certificate are not checked if `domain` is None.
        """
        chain = key = None
        try:
            chain = read_certificates(self.certificate)
        except ValueError as error:
            yield self._problem("certificate", str(error))
        try:
            key = read_private_key(self.private_key.get_secret_value())
        except ValueError as error:
            yield self._problem("privateKey", str(error))
        if chain:
            for message in checks.find_chain_problems(chain, domain, now):
                yield self._problem("certificate", message)
        if chain and key:
            for message in checks.find_key_problems(key, chain):
                yield self._problem("privateKey", message)
            size = len(self.pem.get_secret_value())
            if size > _MAX_PEM_BYTES:
                yield self._problem(
                    "certificate",
                    f"the chain and its key have {size} bytes, but HAProxy accepts {_MAX_PEM_BYTES}: "
                    "give fewer certificates, or one with fewer names",
                )

    @staticmethod
    def _problem(key: str, message: str) -> Problem:
        return Problem((key,), None, message)


def current_time(info: ValidationInfo) -> datetime:
    """Returns the time at which certificates must be valid. `read_settings` passes it to every validator."""
    context: dict[str, datetime] = info.context or {}
    return context["now"]
