"""The DNS server: answers from Route 53's records, EC2's own host names and a few fixed names."""

import re
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping

from dnslib import QTYPE, RCODE, RR, A, DNSError, DNSRecord
from dnslib.server import BaseResolver, DNSHandler, DNSLogger, DNSServer

from sandbox.cloud import addresses

Records = list[tuple[str, str, int, str]]
"""Name, type, time to live, value."""

_EC2_NAME = re.compile(
    rf"(?:ip|ec2)-(\d+)-(\d+)-(\d+)-(\d+)\.{addresses.REGION}\.compute\.(?:internal|amazonaws\.com)\."
)


class Zones(BaseResolver):
    """Resolves names from `fixed` and from `read`, which is called again when `changed` is set."""

    def __init__(
        self, fixed: Mapping[str, str], read: Callable[[], Records], changed: threading.Event
    ) -> None:
        self._fixed: Records = [(f"{name}.", "A", 60, address) for name, address in fixed.items()]
        self._read = read
        self._changed = changed
        self._lock = threading.Lock()
        self._records: dict[str, list[RR]] = {}
        changed.set()

    def resolve(self, request: DNSRecord, handler: DNSHandler | None) -> DNSRecord:
        reply = request.reply()
        name, wanted = str(request.q.qname).lower(), QTYPE[request.q.qtype]
        if own := _EC2_NAME.fullmatch(name):
            if wanted == "A":
                reply.add_answer(RR(name, QTYPE.A, ttl=60, rdata=A(".".join(own.groups()))))
            return reply
        for _ in range(8):  # limits a chain of CNAMEs
            records = _find_records(self._load_records(), name)
            if records is None:
                if not reply.rr:
                    reply.header.rcode = RCODE.NXDOMAIN
                return reply
            matching = [record for record in records if QTYPE[record.rtype] in (wanted, "CNAME")]
            reply.add_answer(*matching)
            if wanted == "CNAME" or not any(QTYPE[record.rtype] == "CNAME" for record in matching):
                return reply
            name = str(matching[0].rdata).lower()
        return reply

    def _load_records(self) -> dict[str, list[RR]]:
        with self._lock:
            if self._changed.is_set():
                self._changed.clear()
                try:
                    self._records = _parse_records([*self._fixed, *self._read()])
                except BaseException:
                    self._changed.set()
                    raise
            return self._records


def _find_records(records: Mapping[str, list[RR]], name: str) -> list[RR] | None:
    """Returns the records of a name or of the wildcard that matches it, or None if the name does not exist."""
    if name in records:
        return records[name]
    _, _, parent = name.partition(".")
    while parent:
        if wildcard := records.get(f"*.{parent}"):
            return [RR(name, record.rtype, ttl=record.ttl, rdata=record.rdata) for record in wildcard]
        if any(known == parent or known.endswith(f".{parent}") for known in records):
            return None  # the closest existing name has no wildcard below it (RFC 4592)
        _, _, parent = parent.partition(".")
    return None


def _parse_records(records: Records) -> dict[str, list[RR]]:
    parsed: dict[str, list[RR]] = defaultdict(list)
    for name, kind, ttl, value in records:
        if kind == "SOA":
            continue  # moto's SOA record does not parse, and nothing queries it
        try:
            name = name.lower().replace(r"\052", "*")  # Route 53's form of an asterisk
            parsed[name] += RR.fromZone(f"{name} {ttl} IN {kind} {value}")
        except (DNSError, ValueError, LookupError) as error:
            print(f"DNS ignores {name} {kind} {value}: {error}", file=sys.stderr)
    return dict(parsed)


def serve(zones: Zones) -> None:
    """Starts the DNS server (UDP and TCP) in threads of this process."""
    for tcp in (False, True):
        DNSServer(
            zones, address=addresses.DNS, port=53, tcp=tcp, logger=DNSLogger("-request,-reply")
        ).start_thread()
