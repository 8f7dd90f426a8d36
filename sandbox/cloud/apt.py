"""What apt on this host was told, carried over to Debian 13 machines: their packages come from where the host's come from."""

import ipaddress
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

DEBIAN_SUITES = ("buster", "bullseye", "bookworm", "trixie", "forky", "sid")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# What the host says about reaching its archives; everything else in its apt.conf is its own business.
_CARRIED = re.compile(
    r"Acquire::(https?::|Check-|Allow(Insecure|Weak|Downgrade)|Force|Retries|Queue-Mode|BrokenProxy)",
    re.IGNORECASE,
)
_DEFAULT_PORT = {"http": 80, "https": 443}


@dataclass(frozen=True, order=True)
class Source:
    """One archive: where it is, which suite of it, which components."""

    uri: str
    suite: str
    components: tuple[str, ...]


@dataclass(frozen=True, order=True)
class Upstream:
    """A server that apt talks to."""

    host: str
    port: int


def parse_one_line(text: str) -> Iterator[Source]:
    """sources.list: `deb [options] URI SUITE COMPONENT…`."""
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[[^]]*]\s+)?(\S+)\s+(\S+)\s*([^#]*)", line)
        if match:
            yield Source(match[1], match[2], tuple(match[3].split()))


def parse_deb822(text: str) -> Iterator[Source]:
    """*.sources: stanzas of `Field: value`, values folded over indented lines."""
    for stanza in re.split(r"\n[ \t]*\n", text):
        lines = [line for line in stanza.splitlines() if not line.startswith("#")]
        folded = re.sub(r"\n[ \t]+", " ", "\n".join(lines))
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in folded.splitlines())
        }
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in (
            "no",
            "false",
        ):
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(uri, suite, tuple(fields.get("components", "").split()))


def source_files(root: Path) -> list[Path]:
    """The files in which apt under `root` finds its archives."""
    folder = root / "etc/apt"
    listed = [
        folder / "sources.list",
        *folder.glob("sources.list.d/*.list"),
        *folder.glob("sources.list.d/*.sources"),
    ]
    return sorted(path for path in listed if path.is_file())


def read_sources(root: Path) -> list[Source]:
    """Every binary archive that apt under `root` uses."""
    return [
        source
        for path in source_files(root)
        for source in (parse_deb822 if path.suffix == ".sources" else parse_one_line)(path.read_text())
    ]


def for_trixie(sources: list[Source]) -> list[Source]:
    """The Debian archives among the host's, each at the same place but for Debian 13; empty on a host that has none."""
    found: set[Source] = set()
    for source in sources:
        codename, dash, pocket = source.suite.partition("-")
        if codename in DEBIAN_SUITES and pocket in ("", "updates", "security"):
            found.add(replace(source, suite=f"trixie{dash}{pocket}", components=("main",)))
    return sorted(found)


def render_sources(sources: list[Source]) -> str:
    """sources.list text, each line with the key that Debian signs with."""
    return "".join(f"deb [signed-by={KEYRING}] {s.uri} {s.suite} {' '.join(s.components)}\n" for s in sources)


def carried_configuration(dump: str) -> str:
    """The lines of `apt-config dump` that a machine behind the same archives and proxies needs."""
    lines = [line for line in dump.splitlines() if _CARRIED.match(line)]
    return "".join(f"{line}\n" for line in lines if not line.endswith((' "";', ' "0";')))


def host_configuration() -> str:
    return carried_configuration(
        subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout
    )


def proxies(configuration: str) -> list[str]:
    """The proxies (URLs) that an apt.conf names."""
    found = re.findall(
        r'^Acquire::https?::Proxy(?:::\S+)?\s+"([^"]+)";', configuration, re.MULTILINE | re.IGNORECASE
    )
    return sorted({url for url in found if url.upper() != "DIRECT"})


def upstreams(sources: list[Source], configuration: str) -> list[Upstream]:
    """Every server that apt with these sources and this configuration may connect to."""
    found: set[Upstream] = set()
    for url in [*(source.uri for source in sources), *proxies(configuration)]:
        parts = urlsplit(url)
        if parts.scheme in _DEFAULT_PORT and parts.hostname:
            found.add(Upstream(parts.hostname, parts.port or _DEFAULT_PORT[parts.scheme]))
    return sorted(found)


def name_of(host: str) -> str:
    """The name under which machines reach a server: its own, unless that is an address or means another machine over there."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host != "localhost":
            return host
    return f"packages-{re.sub('[^0-9a-z]+', '-', host)}.test"


def with_names(text: str, servers: list[Upstream]) -> str:
    """Sources or apt.conf text with every server under the name that machines reach it by."""
    for server in servers:
        text = re.sub(
            rf"(//(?:[^/@\s\"]*@)?)\[?{re.escape(server.host)}]?(?=[:/\s\"]|$)",
            rf"\g<1>{name_of(server.host)}",
            text,
        )
    return text
