"""SSH keys: each machine's host key, known before the machine exists, so that no first connection is trusted blindly."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class HostKey:
    """`private_openssh` is a whole key file; `public_openssh` is one line as in authorized_keys, without comment."""

    private_openssh: str = field(repr=False)
    public_openssh: str


def host_key(seed_hex: str, machine_name: str) -> HostKey:
    """The machine's ed25519 host key: the same seed and name always give the same text."""
    raise NotImplementedError


def public_key(private_openssh: str) -> str:
    """The public half of an unencrypted private key, as one line of authorized_keys."""
    raise NotImplementedError
