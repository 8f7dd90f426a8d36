"""ModifyVolume over a day."""

from datetime import timedelta
from typing import Any

import pytest
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.elastic_block_store import Volume

from sandbox.cloud.moto_corrections import volumes


def let_pass(volume: Volume, time: timedelta) -> None:
    for modification in volume.modifications:
        modification.start_time -= time


def enlarge(volume: Volume) -> None:
    volume.modify(target_size=volume.size + 1)


def test_volume_is_modified_four_times_a_day_and_only_after_the_previous_modification_is_complete() -> None:
    volume: Any = Volume(None, "vol-1", 8, None)
    for number in range(volumes.LIMIT):
        enlarge(volume)
        assert volume.modifications[-1].modification_state == "optimizing"
        with pytest.raises(EC2ClientError, match="cannot be modified in modification state OPTIMIZING"):
            enlarge(volume)
        assert volume.size == 9 + number
        let_pass(volume, volumes.OPTIMIZING)
        assert volume.modifications[-1].modification_state == "completed"
    with pytest.raises(EC2ClientError, match="reached the maximum modification rate per volume limit"):
        enlarge(volume)
    let_pass(volume, timedelta(hours=24) - volumes.LIMIT * volumes.OPTIMIZING)
    enlarge(volume)
    assert volume.size == 9 + volumes.LIMIT
