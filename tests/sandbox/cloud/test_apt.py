"""The apt sources and configuration of machines."""

from sandbox.cloud import apt
from sandbox.cloud.apt import Source, Upstream

ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb http://mirror.example:8081/debian bookworm main contrib # comment
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] https://mirror.example/security bookworm-security main
deb-src http://mirror.example/debian bookworm main
deb https://elsewhere.example/node nodistro main
deb http://mirror.example:8081/debian bookworm-backports main
"""
DEB822 = """\
Types: deb deb-src
# a comment
URIs: http://one.example/debian
 http://two.example/debian
Suites: trixie
 trixie-updates
Components: main non-free
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://off.example/debian
Suites: trixie
Components: main
Enabled: no
"""


def test_sources_of_both_formats_become_debian_13_sources() -> None:
    assert apt.render_sources(apt.convert_to_trixie(list(apt.parse_one_line(ONE_LINE)))) == (
        f"deb [signed-by={apt.KEYRING}] http://mirror.example:8081/debian trixie main\n"
        f"deb [signed-by={apt.KEYRING}] https://mirror.example/security trixie-security main\n"
    )
    assert list(apt.parse_deb822(DEB822)) == [
        Source(uri, suite, ("main", "non-free"))
        for uri in ("http://one.example/debian", "http://two.example/debian")
        for suite in ("trixie", "trixie-updates")
    ]


def test_machines_get_proxies_and_checks_of_the_host() -> None:
    dump = """\
APT::Architecture "amd64";
Acquire::Check-Valid-Until "false";
Acquire::AllowInsecureRepositories "0";
Acquire::IndexTargets::deb::Packages::MetaKey "$(COMPONENT)/Packages";
Acquire::http "";
Acquire::http::Proxy "http://user:word@10.9.8.7:3128/";
Acquire::https::Proxy::direct.example "DIRECT";
Acquire::Changelogs::URI::Origin::Debian "https://metadata.example/changelogs";
DPkg::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb || true";
"""
    configuration = apt.select_configuration(dump)
    assert configuration == (
        'Acquire::Check-Valid-Until "false";\n'
        'Acquire::http::Proxy "http://user:word@10.9.8.7:3128/";\n'
        'Acquire::https::Proxy::direct.example "DIRECT";\n'
    )
    servers = apt.find_upstreams(
        [Source("https://mirror.example/debian", "trixie", ("main",))], configuration
    )
    assert servers == [Upstream("10.9.8.7", 3128), Upstream("mirror.example", 443)]
    # Machines cannot reach addresses of the host's network; the name resolves to the relay.
    assert "http://user:word@packages-10-9-8-7.test:3128/" in apt.rename_upstreams(configuration, servers)
    sources = "deb http://localhost:9999/debian trixie main\n"
    renamed = apt.rename_upstreams(sources, [Upstream("localhost", 9999)])
    assert renamed == "deb http://packages-localhost.test:9999/debian trixie main\n"
