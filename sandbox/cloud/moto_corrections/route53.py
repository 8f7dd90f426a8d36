"""Records of hosted zones."""

from typing import Any

from moto.route53.exceptions import Route53ClientError
from moto.route53.models import FakeZone, Route53Backend

from sandbox.cloud.moto_corrections.correction import correct


@correct(Route53Backend, "change_resource_record_sets")
def check_batch(change: Any, backend: Any, zone_id: str, changes: list[dict[str, Any]]) -> None:
    """ChangeResourceRecordSets returns InvalidChangeBatch, and changes nothing, if a change does not fit (Route 53 API).

    CREATE needs a record that does not exist, DELETE one with the same values. moto compares with earlier requests.
    """
    records: dict[tuple[str, str, str | None], tuple[int | None, list[str]]] = {
        (_normalize(record.name), record.type, record.set_identifier): (
            _ttl(record.ttl),
            sorted(record.records),
        )
        for record in backend.get_hosted_zone(zone_id).rrsets
    }
    for request in changes:
        record = request["ResourceRecordSet"]
        key = _normalize(record["Name"]), record["Type"], record.get("SetIdentifier")
        values = sorted(value["Value"] for value in record.get("ResourceRecords", []))
        shown = f"resource record set [name='{key[0]}', type='{key[1]}']"
        match request["Action"]:
            case "CREATE" if key in records:
                raise Route53ClientError(
                    "InvalidChangeBatch", f"[Tried to create {shown} but it already exists]"
                )
            case "DELETE" if key not in records:
                raise Route53ClientError(
                    "InvalidChangeBatch", f"[Tried to delete {shown} but it was not found]"
                )
            case "DELETE" if records[key] != (_ttl(record.get("TTL")), values):
                raise Route53ClientError(
                    "InvalidChangeBatch",
                    f"[Tried to delete {shown} but the values provided do not match the current values]",
                )
            case "DELETE":
                del records[key]
            case _:
                records[key] = _ttl(record.get("TTL")), values
    change(backend, zone_id, changes)


def _normalize(name: str) -> str:
    return f"{name.lower().rstrip('.')}."


def _ttl(value: object) -> int | None:
    return None if value is None else int(str(value))


@correct(FakeZone, "delete_rrset")
def forget_deleted_record(delete: Any, zone: Any, record: dict[str, Any]) -> None:
    """A deleted record can be created again (Route 53 API, ChangeResourceRecordSets); moto may refuse it."""
    delete(zone, record)
    name = record["Name"].strip(".")
    zone.rr_changes[:] = [
        change
        for change in zone.rr_changes
        if (known := change["ResourceRecordSet"])["Name"] != name or known["Type"] != record["Type"]
    ]
