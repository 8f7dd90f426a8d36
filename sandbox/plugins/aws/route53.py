"""Route 53 records."""

from typing import Any

from botocore.exceptions import ClientError

from sandbox.plugins.aws.client import AwsClient, error_code
from sandbox.plugins.aws.resource_type import AwsResourceType
from sandbox.plugins.properties import Properties


def _full_name(client: AwsClient, properties: Properties) -> str:
    """Returns the record's full name. A name outside the zone is relative to it, as in the official provider."""
    zone = client.route53.get_hosted_zone(Id=properties["zoneId"])["HostedZone"]["Name"].rstrip(".")
    name = str(properties["name"]).rstrip(".").lower()
    return name if name == zone or name.endswith(f".{zone}") else f"{name}.{zone}"


def _record_set(client: AwsClient, properties: Properties) -> dict[str, Any]:
    records = properties["records"]
    assert isinstance(records, list)
    return {
        "Name": _full_name(client, properties),
        "Type": properties["type"],
        "TTL": properties["ttl"],
        "ResourceRecords": [{"Value": str(value)} for value in records],
    }


def _change(client: AwsClient, zone: object, *changes: tuple[str, dict[str, Any]]) -> None:
    batch = {"Changes": [{"Action": action, "ResourceRecordSet": record} for action, record in changes]}
    change = client.route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=batch)
    client.wait(
        "Route 53 Record to be in sync",
        lambda: client.route53.get_change(Id=change["ChangeInfo"]["Id"])["ChangeInfo"]["Status"] == "INSYNC",
    )


def _find(client: AwsClient, properties: Properties) -> dict[str, Any] | None:
    try:
        name = _full_name(client, properties)
        found = client.route53.list_resource_record_sets(
            HostedZoneId=properties["zoneId"],
            StartRecordName=name,
            StartRecordType=properties["type"],
            MaxItems="1",
        )["ResourceRecordSets"]
    except ClientError as problem:
        if error_code(problem) == "NoSuchHostedZone":
            return None
        raise
    for record in found:
        if record["Name"].rstrip(".") == name and record["Type"] == properties["type"]:
            return dict(record)
    return None


def _create(client: AwsClient, inputs: Properties) -> str:
    record = _record_set(client, inputs)
    _change(client, inputs["zoneId"], ("CREATE", record))
    return f"{inputs['zoneId']}_{record['Name']}_{inputs['type']}"


def _read(client: AwsClient, record_id: str, known: Properties) -> Properties | None:
    found = _find(client, known)
    if found is None:
        return None
    return {
        "fqdn": found["Name"].rstrip("."),
        "records": [record["Value"] for record in found["ResourceRecords"]],
        "ttl": found["TTL"],
        "type": found["Type"],
    }


def _update(
    client: AwsClient, record_id: str, state: Properties, inputs: Properties, changed: set[str]
) -> None:
    changes = [("UPSERT", _record_set(client, inputs))]
    if "type" in changed and (old := _find(client, state)):
        changes = [("DELETE", old), ("CREATE", _record_set(client, inputs))]
    _change(client, inputs["zoneId"], *changes)


def _delete(client: AwsClient, record_id: str, state: Properties) -> None:
    if found := _find(client, state):
        _change(client, state["zoneId"], ("DELETE", found))


RECORD = AwsResourceType(
    token="aws:route53/record:Record",
    label="Route53 Record",
    required=frozenset({"zoneId", "name", "type", "records", "ttl"}),
    replace_on_change=frozenset({"zoneId", "name"}),
    update_on_change=frozenset({"type", "ttl", "records"}),
    unordered=frozenset({"records"}),
    taggable=False,
    outputs=frozenset({"fqdn"}),
    create=_create,
    read=_read,
    update=_update,
    delete=_delete,
)
