"""The cloud-init seed of a machine."""

from sandbox.cloud import machines
from tests.sandbox.cloud.instances import instance


def test_seed_contains_unchanged_user_data_and_ec2_hostname() -> None:
    assert machines.render_seed(instance(8, None), b"\x1f\x8bzipped") == {
        "user-data": b"\x1f\x8bzipped",
        "meta-data": b"""\
{
  "instance-id": "i-00000000000000008",
  "local-hostname": "ip-10-0-0-8.eu-west-1.compute.internal"
}
""",
    }
    assert machines.render_seed(instance(8, None), b"")["user-data"] == b"#cloud-config\n{}\n"
