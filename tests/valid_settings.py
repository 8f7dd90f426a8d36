"""Draws valid settings. Every size and length is its smallest or largest allowed value, or one between them."""

import json
from collections.abc import Sequence
from ipaddress import IPv4Address

from hypothesis import strategies as st

MOST_APPLICATIONS, MOST_NAMES, LONGEST_NAMES = 50, 99, 5000
MOST_ORIGINS, MOST_EDGES = 100, 1000
LONGEST_HOST_NAME, LONGEST_STACK_NAME = 253, 32
ZONE = "ant-media.test"
# With dns-01, the name of the challenge record must fit too.
LONGEST_NAME = {"http-01": LONGEST_HOST_NAME, "dns-01": LONGEST_HOST_NAME - len("_acme-challenge.")}


def up_to(smallest: int, largest: int) -> st.SearchStrategy[int]:
    """Draws the largest value, the smallest one, or any between. The largest comes first, so it is always tried."""
    return st.sampled_from([largest, smallest]) | st.integers(smallest, largest)


def host_name(start: str, length: int) -> str:
    """Returns a host name in the zone that begins with `start` and has `length` characters."""
    first = start.ljust(length - len(ZONE) - 1, "x")
    # A dot in every 33rd place, but not in the last: no label is longer than 63 characters.
    labels = "".join("." if i % 33 == 32 and i < len(first) - 1 else c for i, c in enumerate(first))
    return f"{labels}.{ZONE}"


def networks(count: int, start: int) -> list[str]:
    return [f"{IPv4Address(start + i)}/32" for i in range(count)]


@st.composite
def certificates(draw: st.DrawFn, challenge: str, domain_length: int) -> dict[str, object]:
    """Draws `acme`, with as long names as the number of names allows."""
    count = draw(st.sampled_from([MOST_NAMES, 20, 0]))
    length = min(LONGEST_NAME[challenge], (LONGEST_NAMES - domain_length) // max(count, 1))
    names = [host_name(f"name{n}", length) for n in range(count)]
    key_type = draw(st.sampled_from(["rsa", "ecdsa"]))
    return {
        "email": "operator@ant-media.test",
        "names": names,
        "challenge": challenge,
        "keyType": key_type,
    }


def server_settings() -> st.SearchStrategy[dict[str, object]]:
    limits = st.fixed_dictionaries({"cpu_limit": up_to(10, 100), "memory_limit_percentage": up_to(10, 100)})
    return st.fixed_dictionaries({}, optional={"logLevel": st.sampled_from(["ALL", "OFF"]), "server": limits})


@st.composite
def valid_settings(draw: st.DrawFn, most_nodes: Sequence[int] = (MOST_ORIGINS, MOST_EDGES)) -> dict[str, str]:
    """Draws settings without secrets, as Pulumi passes them to the program. `most_nodes`: origins and edges."""
    challenge = draw(st.sampled_from(["dns-01", "http-01"]))
    domain = host_name("live", draw(up_to(len(ZONE) + 5, LONGEST_NAME[challenge])))
    name_length = draw(up_to(2, 64))
    values = {
        "adminCidrs": networks(draw(up_to(1, 15)), 0x0A000000),
        "publisherCidrs": networks(draw(up_to(1, 10)), 0x0B000000),
        "monitoringCidrs": networks(draw(up_to(0, 8)), 0x0C000000),
        "applications": [f"{n:02}".ljust(name_length, "a") for n in range(draw(up_to(1, MOST_APPLICATIONS)))],
        "origins": {"count": draw(up_to(1, most_nodes[0]))},
        "edges": {"count": draw(up_to(0, most_nodes[1]))},
        "network": {"zones": draw(up_to(1, 6))},
        "rtmpsPort": draw(st.sampled_from([65535, 1936, 1, 0])),
        "serverSettings": draw(server_settings()),
        "srt": draw(st.just(True) | st.booleans()),
        "hstsMaxAge": draw(up_to(0, 63_072_000)),
        "connectionsPerClient": draw(up_to(10, 1_000_000)),
        "acme": draw(certificates(challenge, len(domain))),
        "recordings": {"bucket": "create", "deleteWithStack": draw(st.booleans())},
    }
    return {"domain": domain, "route53Zone": ZONE} | {key: json.dumps(value) for key, value in values.items()}
