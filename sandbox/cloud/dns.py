"""The cloud's DNS: Route 53's records, EC2's own names, the few fixed ones, and nothing else."""

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

_OWN_NAME = re.compile(
    rf"(?:ip|ec2)-(\d+)-(\d+)-(\d+)-(\d+)\.{addresses.REGION}\.compute\.(?:internal|amazonaws\.com)\."
)


class Zones(BaseResolver):
    """Answers from the fixed names and from `read`, which is asked again after each change of a zone."""

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
        if own := _OWN_NAME.fullmatch(name):
            if wanted == "A":
                reply.add_answer(RR(name, QTYPE.A, ttl=60, rdata=A(".".join(own.groups()))))
            return reply
        for _ in range(8):  # aliases of aliases, but not for ever
            records = _find(self._current(), name)
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

    def _current(self) -> dict[str, list[RR]]:
        with self._lock:
            if self._changed.is_set():
                self._changed.clear()
                try:
                    self._records = _parse([*self._fixed, *self._read()])
                except BaseException:
                    self._changed.set()
                    raise
            return self._records


def _find(records: Mapping[str, list[RR]], name: str) -> list[RR] | None:
    """The name's own records, or those of the wildcard that stands for it."""
    if name in records:
        return records[name]
    _, _, parent = name.partition(".")
    while parent:
        if wildcard := records.get(f"*.{parent}"):
            return [RR(name, record.rtype, ttl=record.ttl, rdata=record.rdata) for record in wildcard]
        if any(known == parent or known.endswith(f".{parent}") for known in records):
            return None  # the nearest name that exists has no wildcard below it
        _, _, parent = parent.partition(".")
    return None


def _parse(records: Records) -> dict[str, list[RR]]:
    parsed: dict[str, list[RR]] = defaultdict(list)
    for name, kind, ttl, value in records:
        if kind == "SOA":
            continue  # moto's does not parse, and nobody asks for it
        try:
            name = name.lower().replace(r"\052", "*")  # as Route 53 spells it
            parsed[name] += RR.fromZone(f"{name} {ttl} IN {kind} {value}")
        except (DNSError, ValueError, LookupError) as error:
            print(f"DNS leaves out {name} {kind} {value}: {error}", file=sys.stderr)
    return dict(parsed)


def serve(zones: Zones) -> None:
    """Answers over UDP and TCP in threads of this process."""
    for tcp in (False, True):
        DNSServer(
            zones, address=addresses.DNS, port=53, tcp=tcp, logger=DNSLogger("-request,-reply")
        ).start_thread()
