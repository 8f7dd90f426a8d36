from cluster.port_table import SecurityGroup, egress_rules, ingress_rules

# security group, ports, source, name
WITHOUT_OPTIONS = """
load-balancer  80/tcp           world          http
load-balancer  443/tcp          world          publish
load-balancer  5080/tcp         world          play-http
load-balancer  5443/tcp         world          play
rtmp           1935/tcp         publishers     rtmp
load-balancer  4444/tcp         admins         panel
load-balancer  4444/tcp         world          panel-links
load-balancer  6080/tcp         monitors       statistics
load-balancer  22/tcp           admins         ssh
nodes          22/tcp           load-balancer  ssh
nodes          5080/tcp         load-balancer  http
nodes          5080/tcp         nodes          rest-proxy
nodes          5000/tcp         nodes          cluster
nodes          50000-60000/udp  world          webrtc
origins        1935/tcp         load-balancer  rtmp
"""
RTMPS = "rtmp           1936/tcp         publishers     rtmps\n"
SRT = "origins        4200/udp         publishers     srt\n"
DATABASE = """\
database       22/tcp           load-balancer  ssh
database       6379/tcp         nodes          registry
database       6379/tcp         load-balancer  replica
load-balancer  6379/tcp         nodes          registry
load-balancer  6379/tcp         database       replica
"""
MONITORING = """\
nodes          9090/tcp         load-balancer  server-metrics
nodes          9100/tcp         load-balancer  metrics
"""
MONITORED_DATABASE = "database       9100/tcp         load-balancer  metrics\n"


def format_rules(rtmps_port: int, srt: bool, database: bool, monitoring: bool) -> str:
    lines = [""]
    for rule in ingress_rules(rtmps_port, srt, database, monitoring):
        ports = f"{rule.from_port}-{rule.to_port}" if rule.from_port != rule.to_port else f"{rule.from_port}"
        lines.append(
            f"{rule.security_group:14} {ports + '/' + rule.protocol:16} {rule.source:14} {rule.name}"
        )
    return "\n".join(lines) + "\n"


def test_ingress_rules_for_each_option():
    assert format_rules(0, srt=False, database=False, monitoring=False) == WITHOUT_OPTIONS
    assert format_rules(0, srt=False, database=False, monitoring=True) == WITHOUT_OPTIONS + MONITORING
    assert format_rules(1936, srt=True, database=True, monitoring=True) == (
        WITHOUT_OPTIONS + RTMPS + SRT + DATABASE + MONITORING + MONITORED_DATABASE
    )


def test_rule_names_are_unique_and_aws_allows_the_descriptions():
    every_rule = ingress_rules(1936, srt=True, database=True, monitoring=True)
    assert len({(rule.security_group, rule.name) for rule in every_rule}) == len(every_rule)
    allowed = set(" ._-:/()#,@[]+=&;{}!$*")
    for rule in (*every_rule, *egress_rules(database=True)):
        assert 0 < len(rule.description) <= 255
        assert all(
            letter.isascii() and (letter.isalnum() or letter in allowed) for letter in rule.description
        )


def test_every_machine_has_an_egress_rule():
    assert [rule.security_group for rule in egress_rules(database=True)] == [
        SecurityGroup.LOAD_BALANCER,
        SecurityGroup.NODES,
        SecurityGroup.DATABASE,
    ]
    assert len(egress_rules(database=False)) == 2
