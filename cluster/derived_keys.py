"""Derives from one seed the machines' SSH host keys, the program's login key and the passwords between machines.

The keys are known before the machines boot, so that the first SSH connection already verifies the host key.
"""

import base64
import textwrap
from dataclasses import dataclass, field
from functools import cached_property
from struct import pack

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)
from pydantic import SecretStr

_ALGORITHM = b"ssh-ed25519"
_CIPHER_BLOCK = 8


@dataclass(frozen=True)
class SshKeys:
    """The operator's private key, and the seed of all derived keys and passwords."""

    private_key: SecretStr
    host_key_seed: SecretStr

    @cached_property
    def login_key(self) -> "KeyPair":
        """The key that the program logs in with.

        A machine's user data has only this key. The program authorizes the operator's key when it logs in, so a change of
        `sshPrivateKey` replaces no machine.
        """
        return derive_key_pair(self.host_key_seed.get_secret_value(), "login of the program")

    @cached_property
    def private_login_key(self) -> SecretStr:
        """The private login key in PKCS #8. The state has it with every remote script, and OpenSSH's format is three times as long."""
        key = load_ssh_private_key(self.login_key.private_openssh.encode(), password=None)
        return SecretStr(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())

    def derive_password(self, purpose: str) -> SecretStr:
        """Returns the stack's password for a purpose."""
        return SecretStr(derive_password(self.host_key_seed.get_secret_value(), purpose))

    @cached_property
    def authorized_keys(self) -> tuple[str, str]:
        """Lines of authorized_keys."""
        return self.login_key.public_openssh, extract_public_key(self.private_key.get_secret_value())


@dataclass(frozen=True)
class KeyPair:
    """An ed25519 key pair."""

    private_openssh: str = field(repr=False)
    """The whole private key file in OpenSSH format, not encrypted."""
    public_openssh: str
    """One line in the format of authorized_keys, without comment."""


def derive_key_pair(seed_hex: str, name: str) -> KeyPair:
    """Returns the ed25519 key pair with this name: a machine's, or that of the program's login.

    The same seed and name always give the same text.

    `seed_hex` is the stack's `sshHostKeySeed`: 64 hexadecimal digits.
    """
    derived = HKDF(
        algorithm=SHA256(),
        length=36,
        salt=None,
        # Of the login key too. Another label would change the keys of running clusters.
        info=b"ant-media-cluster ssh host key " + name.encode(),
    ).derive(bytes.fromhex(seed_hex))
    secret, check_number = derived[:32], derived[32:]
    key = Ed25519PrivateKey.from_private_bytes(secret)
    private = _format_private_key(secret, key.public_key().public_bytes_raw(), check_number)
    return KeyPair(private, _format_public_key(key))


def derive_password(seed_hex: str, purpose: str) -> str:
    """Returns a password of 32 hexadecimal digits that only the program's machines use."""
    info = b"ant-media-cluster password " + purpose.encode()
    return HKDF(SHA256(), length=16, salt=None, info=info).derive(bytes.fromhex(seed_hex)).hex()


def extract_public_key(private_openssh: str) -> str:
    """Returns the public key of an unencrypted ed25519 private key, as one line of authorized_keys.

    Raises ValueError for a key of another type.
    """
    key = load_ssh_private_key(private_openssh.encode(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an ed25519 key")
    return _format_public_key(key)


def _format_public_key(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _format_private_key(secret: bytes, public: bytes, check_number: bytes) -> str:
    """Returns an unencrypted private key file as in OpenSSH's PROTOCOL.key.

    Libraries choose the check number at random. With a random number, the user data would change in every preview.
    """
    public_blob = _encode_string(_ALGORITHM) + _encode_string(public)
    private_blob = check_number + check_number + public_blob
    private_blob += _encode_string(secret + public) + _encode_string(b"")
    private_blob += bytes(range(1, 1 + -len(private_blob) % _CIPHER_BLOCK))
    blob = (
        b"openssh-key-v1\0"
        + _encode_string(b"none")  # cipher
        + _encode_string(b"none")  # key derivation function
        + _encode_string(b"")  # options of the key derivation function
        + pack(">I", 1)  # number of keys
        + _encode_string(public_blob)
        + _encode_string(private_blob)
    )
    lines = textwrap.wrap(base64.b64encode(blob).decode(), 70)
    return "\n".join(["-----BEGIN OPENSSH PRIVATE KEY-----", *lines, "-----END OPENSSH PRIVATE KEY-----", ""])


def _encode_string(data: bytes) -> bytes:
    """Returns SSH's encoding of a string: the length as four bytes, then the data."""
    return pack(">I", len(data)) + data
