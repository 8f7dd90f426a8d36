"""Route 53 records."""

from typing import Any

from botocore.exceptions import ClientError

from sandbox.plugins.aws.client import Cloud, code, refusal
from sandbox.plugins.aws.resource_type import Kind
from sandbox.plugins.properties import Properties


def _full_name(cloud: Cloud, properties: Properties) -> str:
    """A name outside the zone is taken as relative to it, as the official provider does."""
    zone = cloud.route53.get_hosted_zone(Id=properties["zoneId"])["HostedZone"]["Name"].rstrip(".")
    name = str(properties["name"]).rstrip(".").lower()
    if not name:
        return str(zone)
    return name if name == zone or name.endswith(f".{zone}") else f"{name}.{zone}"


def _record_set(cloud: Cloud, properties: Properties) -> dict[str, Any]:
    records = properties["records"]
    assert isinstance(records, list)
    return {
        "Name": _full_name(cloud, properties),
        "Type": properties["type"],
        "TTL": properties["ttl"],
        "ResourceRecords": [{"Value": _quoted(properties["type"], str(value))} for value in records],
    }


def _quoted(kind: object, value: str) -> str:
    return f'"{value}"' if kind in ("TXT", "SPF") and not value.startswith('"') else value


def _change(cloud: Cloud, zone: object, *changes: tuple[str, dict[str, Any]]) -> None:
    batch = {"Changes": [{"Action": action, "ResourceRecordSet": record} for action, record in changes]}
    change = cloud.route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=batch)
    cloud.wait(
        "Route 53 Record to be in sync",
        lambda: cloud.route53.get_change(Id=change["ChangeInfo"]["Id"])["ChangeInfo"]["Status"] == "INSYNC",
    )


def _find(cloud: Cloud, properties: Properties) -> dict[str, Any] | None:
    try:
        name = _full_name(cloud, properties)
        found = cloud.route53.list_resource_record_sets(
            HostedZoneId=properties["zoneId"],
            StartRecordName=name,
            StartRecordType=properties["type"],
            MaxItems="1",
        )["ResourceRecordSets"]
    except ClientError as problem:
        if code(problem) == "NoSuchHostedZone":
            return None
        raise
    for record in found:
        if record["Name"].rstrip(".") == name and record["Type"] == properties["type"]:
            return dict(record)
    return None


def _create(cloud: Cloud, inputs: Properties) -> str:
    action = "UPSERT" if inputs.get("allowOverwrite") else "CREATE"
    record = _record_set(cloud, inputs)
    if action == "CREATE" and _find(cloud, inputs):  # moto keeps both
        message = f"[Tried to create resource record set [name='{record['Name']}.', type='{record['Type']}'] but it already exists]"
        raise refusal("ChangeResourceRecordSets", "InvalidChangeBatch", message)
    _change(cloud, inputs["zoneId"], (action, record))
    return f"{inputs['zoneId']}_{record['Name']}_{inputs['type']}"


def _read(cloud: Cloud, record_id: str, known: Properties) -> Properties | None:
    found = _find(cloud, known)
    if found is None:
        return None
    values = [record["Value"] for record in found["ResourceRecords"]]
    if found["Type"] in ("TXT", "SPF"):
        values = [value.strip('"') for value in values]
    return {
        "fqdn": found["Name"].rstrip("."),
        "records": values,
        "ttl": found["TTL"],
        "type": found["Type"],
    }


def _update(cloud: Cloud, record_id: str, state: Properties, inputs: Properties, changed: set[str]) -> None:
    changes = [("UPSERT", _record_set(cloud, inputs))]
    if "type" in changed and (old := _find(cloud, state)):
        changes = [("DELETE", old), ("CREATE", _record_set(cloud, inputs))]
    _change(cloud, inputs["zoneId"], *changes)


def _delete(cloud: Cloud, record_id: str, state: Properties) -> None:
    if found := _find(cloud, state):
        _change(cloud, state["zoneId"], ("DELETE", found))


RECORD = Kind(
    token="aws:route53/record:Record",
    called="Route53 Record",
    required=frozenset({"zoneId", "name", "type", "records", "ttl"}),
    replacing=frozenset({"zoneId", "name"}),
    in_place=frozenset({"type", "ttl", "records", "allowOverwrite"}),
    sets=frozenset({"records"}),
    chosen=frozenset({"allowOverwrite"}),
    taggable=False,
    outputs=frozenset({"fqdn"}),
    create=_create,
    read=_read,
    update=_update,
    delete=_delete,
)
