"""The certificate: asked of an ACME server, or brought by the user."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, SecretStr, StrictStr, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from cluster.settings import certificate_checks as checks
from cluster.settings import rules
from cluster.settings.rules import MODEL, Email, Problem, refuse


@dataclass(frozen=True, kw_only=True, config=MODEL)
class AcmeSettings:
    """`directory` is the directory's URL; `root` the PEM of the CA certificates to trust for it, beside the usual ones."""

    email: Email
    directory: Annotated[StrictStr, AfterValidator(rules.acme_directory)] = "production"
    root: StrictStr | None = None
    key_type: Literal["ecdsa", "rsa"] = "ecdsa"
    challenge: Literal["http-01", "dns-01"] = "http-01"
    # A certificate takes 100 names, and the domain is one.
    names: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(rules.certificate_name)], ...],
        AfterValidator(rules.distinct),
        rules.at_most(99),
    ] = ()

    @field_validator("root")
    @classmethod
    def _root_is_usable(cls, root: str | None, info: ValidationInfo) -> str | None:
        if root is None:
            return None
        authorities = checks.read_certificates(root)
        refuse(Problem((), root, advice) for advice in checks.root_problems(authorities, clock(info)))
        return checks.as_pem(authorities)

    @field_validator("names")
    @classmethod
    def _wildcards_by_dns(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("challenge") == "http-01":
            advice = "a wildcard is certified by dns-01 only: set acme.challenge to dns-01, or name each host"
            refuse(
                Problem((place,), name, advice) for place, name in enumerate(names) if name.startswith("*.")
            )
        return names


@dataclass(frozen=True, config=MODEL)
class TlsSettings:
    """Texts as they were given. Whether they will do depends on the domain and the time: `Settings` checks it."""

    certificate: StrictStr
    private_key: SecretStr

    @property
    def pem(self) -> SecretStr:
        """What HAProxy reads: the chain, leaf first and without a root, and the key, with no line that is not PEM."""
        chain = checks.as_pem(checks.served(checks.read_certificates(self.certificate)))
        return SecretStr(
            chain + checks.key_as_pem(checks.read_private_key(self.private_key.get_secret_value()))
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the leaf, as browsers and openssl print it."""
        return checks.fingerprint(checks.read_certificates(self.certificate)[0])

    @property
    def not_after(self) -> datetime:
        return checks.read_certificates(self.certificate)[0].not_valid_after_utc

    def problems(self, domain: str | None, now: datetime) -> Iterator[Problem]:
        """All that is wrong with both, but for names where the domain itself is unknown."""
        chain = key = None
        try:
            chain = checks.read_certificates(self.certificate)
        except ValueError as error:
            yield self._wrong("certificate", str(error))
        try:
            key = checks.read_private_key(self.private_key.get_secret_value())
        except ValueError as error:
            yield self._wrong("privateKey", str(error))
        if chain:
            for advice in checks.chain_problems(chain, domain, now):
                yield self._wrong("certificate", advice)
        if chain and key:
            for advice in checks.key_problems(key, chain):
                yield self._wrong("privateKey", advice)
            size = len(self.pem.get_secret_value())
            if size > checks.MOST_BYTES:
                advice = (
                    f"with the key these are {size} bytes, and HAProxy takes {checks.MOST_BYTES}: give fewer"
                )
                yield self._wrong("certificate", advice)

    @staticmethod
    def _wrong(key: str, advice: str) -> Problem:
        return Problem((key,), None, advice)


def clock(info: ValidationInfo) -> datetime:
    """The time to judge certificates by, which `read_settings` hands to every validator."""
    context: dict[str, datetime] = info.context or {}
    return context["now"]
