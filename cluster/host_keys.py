"""SSH keys: every machine's host key is known before the machine is, so that no first connection is a matter of trust."""

import base64
import textwrap
from dataclasses import dataclass, field
from struct import pack

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

_ALGORITHM = b"ssh-ed25519"
_CIPHER_BLOCK = 8


@dataclass(frozen=True)
class HostKey:
    """`private_openssh` is a whole key file; `public_openssh` is one line as in authorized_keys, without comment."""

    private_openssh: str = field(repr=False)
    public_openssh: str


def host_key(seed_hex: str, machine_name: str) -> HostKey:
    """The machine's ed25519 host key: the same seed and name always give the same text."""
    material = HKDF(
        algorithm=SHA256(),
        length=36,
        salt=None,
        info=b"ant-media-cluster ssh host key " + machine_name.encode(),
    ).derive(bytes.fromhex(seed_hex))
    secret, check = material[:32], material[32:]
    key = Ed25519PrivateKey.from_private_bytes(secret)
    return HostKey(_openssh_file(secret, key.public_key().public_bytes_raw(), check), _public_line(key))


def public_key(private_openssh: str) -> str:
    """The public half of an unencrypted ed25519 key, as one line of authorized_keys."""
    key = load_ssh_private_key(private_openssh.encode(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an ed25519 key")
    return _public_line(key)


def _public_line(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _openssh_file(secret: bytes, public: bytes, check: bytes) -> str:
    """OpenSSH's PROTOCOL.key, without encryption.

    Written here, because every library draws the check number at random: then the user data would
    differ in each preview.
    """
    public_blob = _string(_ALGORITHM) + _string(public)
    private_blob = check + check + public_blob + _string(secret + public) + _string(b"")
    private_blob += bytes(range(1, 1 + -len(private_blob) % _CIPHER_BLOCK))
    blob = (
        b"openssh-key-v1\0"
        + _string(b"none")  # cipher
        + _string(b"none")  # key derivation
        + _string(b"")  # and its options
        + pack(">I", 1)  # number of keys
        + _string(public_blob)
        + _string(private_blob)
    )
    lines = textwrap.wrap(base64.b64encode(blob).decode(), 70)
    return "\n".join(["-----BEGIN OPENSSH PRIVATE KEY-----", *lines, "-----END OPENSSH PRIVATE KEY-----", ""])


def _string(data: bytes) -> bytes:
    return pack(">I", len(data)) + data
