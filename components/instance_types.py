"""EC2 instance types: whether the region has them, and what they bring."""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws


@dataclass(frozen=True)
class InstanceType:
    """What the program wants to know of a type."""

    memory_mib: int


def look_up(types: Mapping[str, str]) -> dict[str, InstanceType]:
    """The types of the settings that are given (setting -> type), by setting.

    Raises:
        pulumi.RunError: types that the region does not have, or of another architecture than the images; all of them.
    """
    found: dict[str, InstanceType] = {}
    problems: list[str] = []
    for setting, name in types.items():
        try:
            answer = aws.ec2.get_instance_type(instance_type=name)
        except Exception as error:
            problems.append(
                f'ant-media-cluster:{setting} is "{name}": {error}; give a type that this region has'
            )
            continue
        if "x86_64" not in answer.supported_architectures:
            problems.append(
                f'ant-media-cluster:{setting} is "{name}", whose processor is {", ".join(answer.supported_architectures)}: '
                "give one of x86_64, as the images are"
            )
        found[setting] = InstanceType(answer.memory_size)
    if problems:
        raise pulumi.RunError("\n".join(problems))
    return found
