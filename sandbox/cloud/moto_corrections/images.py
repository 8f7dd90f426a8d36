"""Machine images and the volumes that instances get from them."""

from typing import Any

from moto.ec2.models.amis import Ami
from moto.ec2.models.elastic_block_store import Volume
from moto.ec2.responses.instances import InstanceResponse

from sandbox.cloud.moto_corrections.correction import correct, correct_property

SNAPSHOT_SIZE = 8
"""Size of a root device's snapshot in GiB, as of Debian's images. moto's are 15 GiB."""
VOLUME_TYPE = "gp3"
GP3_IOPS, GP3_THROUGHPUT = 3000, 125


@correct(Ami, "__init__")
def set_snapshot_size(
    init: Any, image: Ami, *args: Any, root_volume_size: int = SNAPSHOT_SIZE, **properties: Any
) -> None:
    """An image's snapshot has the size of its root device: `root_volume_size` in sandbox/images/amis.json, in GiB."""
    init(image, *args, **properties)
    image.ebs_snapshot.volume.size = root_volume_size


@correct_property(Ami, "block_device_mappings")
def describe_root_device(image: Ami) -> list[dict[str, Any]]:
    """DescribeImages returns the size of the root device's snapshot; the root volume ends with its instance (Debian's images)."""
    ebs = {
        "SnapshotId": image.ebs_snapshot.id,
        "VolumeSize": image.ebs_snapshot.volume.size,
        "DeleteOnTermination": True,
        "VolumeType": VOLUME_TYPE,
        "Encrypted": False,
    }
    return [{"DeviceName": image.root_device_name, "Ebs": ebs}]


@correct(InstanceResponse, "_parse_block_device_mapping")
def merge_root_device(parse: Any, response: Any) -> list[dict[str, Any]]:
    """Each instance has its image's root device; a mapping of RunInstances overrides only what it names (EC2 API, BlockDeviceMapping)."""
    image = response.ec2_backend.amis.get(response._get_param("ImageId"))
    given: list[dict[str, Any]] = response._get_param("BlockDeviceMappings", [])
    if image is not None:
        (root,) = image.block_device_mappings
        own = next((mapping for mapping in given if mapping.get("DeviceName") == root["DeviceName"]), None)
        if own is None:
            own = {"DeviceName": root["DeviceName"]}
            given = [own, *given]
        if "NoDevice" not in own:
            own["Ebs"] = {**root["Ebs"], **own.get("Ebs", {})}
        response.params["BlockDeviceMappings"] = given
    mappings: list[dict[str, Any]] = parse(response)
    for mapping, specified in zip(mappings, given, strict=True):
        mapping["Ebs"]["Throughput"] = specified.get("Ebs", {}).get("Throughput")
    return mappings


@correct(Volume, "__init__")
def set_performance(init: Any, volume: Volume, *args: Any, **properties: Any) -> None:
    """A gp3 volume has 3000 IOPS and 125 MiB/s unless the request says otherwise (EC2 API, CreateVolume)."""
    init(volume, *args, **properties)
    if volume.volume_type == "gp3":
        volume.iops = volume.iops or GP3_IOPS
        volume.throughput = volume.throughput or GP3_THROUGHPUT
