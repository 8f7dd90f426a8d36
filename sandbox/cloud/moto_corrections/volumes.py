"""ModifyVolume and the states of modifications."""

from datetime import timedelta
from typing import Any

from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.elastic_block_store import Volume, VolumeModification

from sandbox.cloud.moto_corrections.correction import correct, correct_property

OPTIMIZING = timedelta(hours=1)
"""How long a modification is in the state `optimizing`. On AWS it is minutes to hours (EBS User Guide, "Monitor the progress of Amazon
EBS volume modifications")."""
LIMIT = 4
"""Modifications of a volume that start within 24 hours (EC2 API, ModifyVolume, since January 2026; before, one in six hours)."""


@correct_property(VolumeModification, "modification_state")
def get_state(modification: VolumeModification) -> str:
    """The new size is there at once, and the modification is complete later; moto completes it at once."""
    return "completed" if utcnow() - modification.start_time >= OPTIMIZING else "optimizing"


@correct_property(VolumeModification, "progress")
def get_progress(modification: VolumeModification) -> int:
    """As `get_state`."""
    return min(100, (utcnow() - modification.start_time) * 100 // OPTIMIZING)


@correct(Volume, "modify")
def check_modification(modify: Any, volume: Volume, *args: Any, **target: Any) -> None:
    """A volume cannot shrink, and each modification waits until the previous one is complete (EC2 API, ModifyVolume).

    The messages are AWS's: of the size in aws/aws-cli issue 4216, of the rate in terraform-provider-aws issue 44612.
    """
    if (target.get("target_size") or volume.size) < volume.size:
        raise EC2ClientError("InvalidParameterValue", "New size cannot be smaller than existing size")
    state = volume.modifications[-1].modification_state if volume.modifications else "completed"
    if state != "completed":
        raise EC2ClientError(
            "IncorrectModificationState",
            f"Volume {volume.id} cannot be modified in modification state {state.upper()}",
        )
    day = utcnow() - timedelta(hours=24)
    if sum(modification.start_time > day for modification in volume.modifications) >= LIMIT:
        raise EC2ClientError(
            "VolumeModificationRateExceeded",
            "You've reached the maximum modification rate per volume limit. Wait at least 6 hours between modifications "
            "per EBS volume.",
        )
    modify(volume, *args, **target)
