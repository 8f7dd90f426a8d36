import subprocess
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from cluster.derived_keys import SshKeys, derive_key_pair, extract_public_key

SEED = "00112233445566778899aabbccddeeff" * 2
seeds = st.binary(min_size=32, max_size=32).map(bytes.hex)
names = st.sampled_from(["load-balancer", "database"]) | st.integers(1, 999).map(lambda i: f"edge{i}")

# If the derivation changed, no running machine would have the host key that Pulumi expects.
ORIGIN1_PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICDCfGe0C8X75z7EQbtw4FUgE53rN0c08SzNw3MYlriM"
ORIGIN1_PRIVATE = """\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACAgwnxntAvF++c+xEG7cOBVIBOd6zdHNPEszcNzGJa4jAAAAIiUnIFKlJyB
SgAAAAtzc2gtZWQyNTUxOQAAACAgwnxntAvF++c+xEG7cOBVIBOd6zdHNPEszcNzGJa4jA
AAAED/cqCfZhpWViXNGaqlBuwJLGMAmHWKgAb1jmc7tvJ8CSDCfGe0C8X75z7EQbtw4FUg
E53rN0c08SzNw3MYlriMAAAAAAECAwQF
-----END OPENSSH PRIVATE KEY-----
"""


def test_the_derived_key_never_changes():
    assert derive_key_pair(SEED, "origin1").public_openssh == ORIGIN1_PUBLIC
    assert derive_key_pair(SEED, "origin1").private_openssh == ORIGIN1_PRIVATE


def test_the_login_key_and_the_passwords_never_change():
    keys = SshKeys(SecretStr(ORIGIN1_PRIVATE), SecretStr(SEED))
    login = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDJgIL483eryVyeinSLGNulv6nxccMW/1aAUNB79X/m5"
    assert keys.authorized_keys == (login, ORIGIN1_PUBLIC)
    passwords = [keys.derive_password(purpose) for purpose in ("replication", "shared by nodes")]
    assert [password.get_secret_value() for password in passwords] == [
        "cd926753a242e2da679a887747cc5431",
        "f25e0d97d8737c5a1dd628d6c54c2460",
    ]


@given(seeds, names)
def test_the_private_key_file_matches_the_public_key(seed: str, name: str):
    key = derive_key_pair(seed, name)
    parsed = load_ssh_private_key(key.private_openssh.encode(), password=None)
    assert (
        parsed.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        == key.public_openssh
    )
    assert extract_public_key(key.private_openssh) == key.public_openssh


@given(seeds, seeds, names, names)
def test_keys_differ_between_machines_and_between_seeds(
    seed: str, other_seed: str, name: str, other_name: str
):
    same = (seed, name) == (other_seed, other_name)
    assert (derive_key_pair(seed, name) == derive_key_pair(other_seed, other_name)) is same


def test_repr_does_not_show_the_private_key():
    key = derive_key_pair(SEED, "origin1")
    assert "PRIVATE" not in repr(key)


def test_ssh_keygen_reads_the_private_key_file(tmp_path: Path):
    key = derive_key_pair(SEED, "origin1")
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text(key.private_openssh)
    read = subprocess.run(
        ["ssh-keygen", "-y", "-f", file], capture_output=True, text=True, timeout=300, check=True
    )
    assert read.stdout.strip() == key.public_openssh
