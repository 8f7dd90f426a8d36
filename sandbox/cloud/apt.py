"""Derives the machines' apt sources and configuration from those of this host."""

import ipaddress
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

DEBIAN_SUITES = ("buster", "bullseye", "bookworm", "trixie", "forky", "sid")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# The options that decide how apt reaches its archives; machines need no others.
_SELECTED_OPTIONS = re.compile(
    r"Acquire::(https?::|Check-|Allow(Insecure|Weak|Downgrade)|Force|Retries|Queue-Mode|BrokenProxy)",
    re.IGNORECASE,
)
_DEFAULT_PORT = {"http": 80, "https": 443}


@dataclass(frozen=True, order=True)
class Source:
    """One suite of a package archive."""

    uri: str
    suite: str
    components: tuple[str, ...]


@dataclass(frozen=True, order=True)
class Upstream:
    """A package server or proxy that apt connects to."""

    host: str
    port: int


def parse_one_line(text: str) -> Iterator[Source]:
    """Parses sources.list: `deb [options] URI SUITE COMPONENT…`."""
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[[^]]*]\s+)?(\S+)\s+(\S+)\s*([^#]*)", line)
        if match:
            yield Source(match[1], match[2], tuple(match[3].split()))


def parse_deb822(text: str) -> Iterator[Source]:
    """Parses *.sources: stanzas of `Field: value`; indented lines continue a value."""
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


def find_source_files(root: Path) -> list[Path]:
    """Returns the source list files of apt under `root`."""
    folder = root / "etc/apt"
    listed = [
        folder / "sources.list",
        *folder.glob("sources.list.d/*.list"),
        *folder.glob("sources.list.d/*.sources"),
    ]
    return sorted(path for path in listed if path.is_file())


def read_sources(root: Path) -> list[Source]:
    """Returns the binary package sources of apt under `root`."""
    return [
        source
        for path in find_source_files(root)
        for source in (parse_deb822 if path.suffix == ".sources" else parse_one_line)(path.read_text())
    ]


def convert_to_trixie(sources: list[Source]) -> list[Source]:
    """Returns the Debian sources among `sources`, with the same URIs, for Debian 13."""
    found: set[Source] = set()
    for source in sources:
        codename, dash, pocket = source.suite.partition("-")
        if codename in DEBIAN_SUITES and pocket in ("", "updates", "security"):
            found.add(replace(source, suite=f"trixie{dash}{pocket}", components=("main",)))
    return sorted(found)


def render_sources(sources: list[Source]) -> str:
    """Returns the text of a sources.list that trusts Debian's keys only."""
    return "".join(f"deb [signed-by={KEYRING}] {s.uri} {s.suite} {' '.join(s.components)}\n" for s in sources)


def select_configuration(dump: str) -> str:
    """Returns the lines of `apt-config dump` that machines need to reach the same archives and proxies."""
    lines = [line for line in dump.splitlines() if _SELECTED_OPTIONS.match(line)]
    return "".join(f"{line}\n" for line in lines if not line.endswith((' "";', ' "0";')))


def read_host_configuration() -> str:
    """Returns the apt configuration of this host that machines need."""
    return select_configuration(
        subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout
    )


def find_proxies(configuration: str) -> list[str]:
    """Returns the URLs of the proxies in an apt.conf."""
    found = re.findall(
        r'^Acquire::https?::Proxy(?:::\S+)?\s+"([^"]+)";', configuration, re.MULTILINE | re.IGNORECASE
    )
    return sorted({url for url in found if url.upper() != "DIRECT"})


def find_upstreams(sources: list[Source], configuration: str) -> list[Upstream]:
    """Returns all servers that apt may connect to with these sources and this configuration."""
    found: set[Upstream] = set()
    for url in [*(source.uri for source in sources), *find_proxies(configuration)]:
        parts = urlsplit(url)
        if parts.scheme in _DEFAULT_PORT and parts.hostname:
            found.add(Upstream(parts.hostname, parts.port or _DEFAULT_PORT[parts.scheme]))
    return sorted(found)


def upstream_name(host: str) -> str:
    """Returns the name by which machines reach a server: its own, except for addresses and localhost."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host != "localhost":
            return host
    return f"packages-{re.sub('[^0-9a-z]+', '-', host)}.test"


def rename_upstreams(text: str, servers: list[Upstream]) -> str:
    """Replaces the servers in sources or apt.conf text by the names that machines use."""
    for server in servers:
        text = re.sub(
            rf"(//(?:[^/@\s\"]*@)?)\[?{re.escape(server.host)}]?(?=[:/\s\"]|$)",
            rf"\g<1>{upstream_name(server.host)}",
            text,
        )
    return text
