"""An EC2 instance for tests of pure functions."""

from ipaddress import IPv4Network

from sandbox.cloud.ec2 import Instance


def instance(number: int, public: str | None, nat: str | None = None) -> Instance:
    return Instance(
        id=f"i-{number:017x}",
        name=f"machine{number}",
        running=True,
        image="ami-1",
        type="t3.micro",
        zone="eu-west-1a",
        vpc="vpc-1",
        private_address=f"10.0.0.{number}",
        network=IPv4Network("10.0.0.0/19"),
        public_address=public,
        nat_address=nat,
        groups=("sg-1",),
    )
