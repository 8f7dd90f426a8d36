"""The DNS server of the local cloud."""

import threading

from dnslib import RCODE, DNSRecord

from sandbox.cloud import dns


def test_dns_follows_cnames_and_answers_existing_names_only() -> None:
    records: dns.Records = [
        ("live.ant-media.test.", "CNAME", 60, "lb.ant-media.test."),
        ("lb.ant-media.test.", "A", 60, "198.51.100.7"),
        ("ant-media.test.", "SOA", 900, "invalid } value"),
        ("broken.ant-media.test.", "A", 60, "not an address"),
        ("_acme-challenge.ant-media.test.", "TXT", 60, '"one"'),
        ("_acme-challenge.ant-media.test.", "TXT", 60, '"two words" "and more"'),
        (r"\052.ant-media.test.", "A", 60, "198.51.100.8"),
    ]
    changed = threading.Event()
    zones = dns.Zones({"acme.test": "203.0.113.14"}, lambda: records, changed)

    def ask(name: str, kind: str = "A") -> list[str] | None:
        reply = zones.resolve(DNSRecord.question(name, kind), None)
        return None if reply.header.rcode == RCODE.NXDOMAIN else [str(record.rdata) for record in reply.rr]

    assert ask("LIVE.ant-media.test") == ["lb.ant-media.test.", "198.51.100.7"]
    assert ask("live.ant-media.test", "AAAA") == ["lb.ant-media.test."]
    assert ask("acme.test") == ["203.0.113.14"]
    assert ask("ip-10-0-0-8.eu-west-1.compute.internal") == ["10.0.0.8"]
    assert ask("_acme-challenge.ant-media.test", "TXT") == ['"one"', '"two words","and more"']
    assert ask("Any.Thing.ant-media.test") == ["198.51.100.8"]
    assert ask("below.live.ant-media.test") is None
    assert ask("www.example.com") is None
    assert ask("late.ant-media.test") == ["198.51.100.8"]
    records.append(("late.ant-media.test.", "A", 60, "198.51.100.9"))
    changed.set()
    assert ask("late.ant-media.test") == ["198.51.100.9"]
