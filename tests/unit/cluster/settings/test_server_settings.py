"""Tests of `serverSettings`."""

import json
from datetime import UTC, datetime

import pytest

from cluster.plan import plan_cluster
from cluster.settings.model import SECRETS, Settings
from cluster.settings.reader import SettingsError, read_settings
from cluster.settings.server_settings import ServerSettingsPlan
from tests.unit.program import SECRETS as SECRET_VALUES
from tests.unit.program import SETTINGS

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
KEY = "serverSettings"
JWT_SECRET = "0123456789abcdef0123456789abcdef"


def read(values: object, encrypted: bool = False, **others: object) -> Settings:
    secret_keys = [*SECRETS, KEY] if encrypted else SECRETS
    given = {key: json.dumps(value) for key, value in {KEY: values, **others}.items()}
    return read_settings({**SECRET_VALUES, **SETTINGS, **given}, secret_keys, NOW)


def plan(values: object, **others: object) -> ServerSettingsPlan:
    return plan_cluster("ant-media-cluster-unit", read(values, True, **others)).node.server_settings


def read_problems(values: object, encrypted: bool = False, **others: object) -> list[str]:
    with pytest.raises(SettingsError) as error:
        read(values, encrypted, **others)
    return [line.removeprefix(f"ant-media-cluster:{KEY}.") for line in str(error.value).splitlines()]


def test_settings_are_separate_by_when_the_server_reads_them_and_by_secrecy() -> None:
    planned = plan(
        {
            "logLevel": "DEBUG",
            "nodeGroup": "eu",
            "server": {
                "name": "live.ant-media.test",
                "cpu_limit": 85,
                "jwtServerControlEnabled": True,
                "jwtServerSecretKey": JWT_SECRET,
            },
        }
    )
    assert json.loads(planned.at_start) == {
        "nodeGroup": "eu",
        "server.cpu_limit": 85,
        "server.jwtServerControlEnabled": True,
    }
    assert planned.live == {"logLevel": "DEBUG", "server.name": "live.ant-media.test"}
    assert planned.secret
    assert json.loads(planned.secret.get_secret_value()) == {"server.jwtServerSecretKey": JWT_SECRET}


def test_name_with_dots_is_the_same_as_nested_objects() -> None:
    assert plan({"server.cpu_limit": 85}) == plan({"server": {"cpu_limit": 85}})
    assert plan({}) == ServerSettingsPlan("{}", None, {})


def test_every_mistake_is_reported_with_its_remedy() -> None:
    assert read_problems(
        {
            "logLevel": "verbose",
            "cpu_limit": 80,
            "nodeGroup": "a b",
            "appIngestsSrtStreamsWithoutStreamId": "Other",
            "rtmp": {"max_inactivity": 1},
            "server.cpu_limit": 85,
            "server": {
                "cpu_limit": 5,
                "cpu_limt": 80,
                "name": "https://live.ant-media.test",
                "memory_limit_percentage": True,
                "jwtServerControlEnabled": True,
                "cpu_measurement_window_size": 0,
            },
        }
    ) == [
        'appIngestsSrtStreamsWithoutStreamId is "Other": applications does not list this application: '
        "give one of LiveApp, WebRTCAppEE, live",
        "cpu_limit is not valid: Ant Media Server 3 has no server setting of this name: did you mean server.cpu_limit?",
        'logLevel is "verbose": give one of ALL, TRACE, DEBUG, INFO, WARN, ERROR, OFF',
        'nodeGroup is "a b": give letters, digits, . _ or -',
        "rtmp.max_inactivity is not valid: Ant Media Server 3 has no server setting of this name: the settings are "
        "appIngestsSrtStreamsWithoutStreamId, logLevel, nativeLogLevel, nodeGroup, prometheus.enabled, proxy.address, server.cpu_limit, "
        "server.cpu_measurement_period_ms, server.cpu_measurement_window_size, server.heartbeatEnabled, server.jwksURL, "
        "server.jwtServerControlEnabled, server.jwtServerSecretKey, server.kafka_brokers, server.localLicenceServerIp, "
        "server.memory_limit_percentage, server.name, server.statusWebHookURL",
        "server.cpu_limit is 5: it is given twice: give it once",
        "server.cpu_limt is not valid: Ant Media Server 3 has no server setting of this name: did you mean server.cpu_limit?",
        "server.cpu_measurement_window_size is 0: give a whole number from 1 to 100",
        "server.jwtServerControlEnabled is true: every token would be refused: also set the secret "
        "server.jwtServerSecretKey, or server.jwksURL",
        "server.memory_limit_percentage is true: give a whole number from 10 to 100",
        'server.name is "https://live.ant-media.test": give a host name or an IPv4 address, without scheme and port',
    ]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("server.allowed_dashboard_CIDR", "10.0.0.0/8", "HAProxy's health check"),
        ("server.allowedDashboardCIDR", "10.0.0.0/8", "list the administrators' networks in adminCidrs"),
        ("http.port", 5081, "HAProxy, the security groups and the other nodes use the default"),
        ("server.origin_port", 5001, "HAProxy, the security groups and the other nodes use the default"),
        ("useGlobalIp", True, "nodes reach each other only at their private addresses"),
        ("clusterdb.host", "redis://a:1", "set databaseUrl"),
        ("server.licence_key", "key", "set licenseKey"),
        ("server.min_free_ram", 10, "set server.memory_limit_percentage"),
    ],
)
def test_setting_that_would_cut_off_the_load_balancer_or_the_program_is_refused_with_the_reason(
    name: str, value: object, reason: str
) -> None:
    (problem,) = read_problems({name: value})
    assert "cannot be set here" in problem
    assert reason in problem


def test_secret_in_plain_text_is_refused_and_not_shown() -> None:
    problems = read_problems({"server": {"jwtServerSecretKey": "hunter2", "cpu_limit": 1}})
    assert problems == [
        "server.cpu_limit is not valid: give a whole number from 10 to 100",
        "server.jwtServerSecretKey is in plain text: encrypt it with pulumi config set --secret --path "
        "'ant-media-cluster:serverSettings.server.jwtServerSecretKey', "
        "and give a new value if anyone else may have read this one",
        "server.jwtServerSecretKey is not valid: give at least 32 characters without spaces",
    ]


def test_remedy_for_a_secret_in_plain_text_names_the_key_as_it_was_given() -> None:
    problems = read_problems({"server.jwtServerSecretKey": "hunter2" * 8})
    assert [problem for problem in problems if "in plain text" in problem] == [
        'ant-media-cluster:serverSettings["server.jwtServerSecretKey"] is in plain text: encrypt it with '
        """pulumi config set --secret --path 'ant-media-cluster:serverSettings["server.jwtServerSecretKey"]', """
        "and give a new value if anyone else may have read this one"
    ]


def test_name_that_all_nodes_would_announce_to_webrtc_clients_is_refused() -> None:
    replaced = {"live": {"replaceCandidateAddrWithServerAddr": True}}
    (problem,) = read_problems({"server": {"name": "live.ant-media.test"}}, applicationSettings=replaced)
    assert "sets server.name to the public address of each node" in problem
    node = plan_cluster("ant-media-cluster-unit", read({}, applicationSettings=replaced)).node
    assert node.announces_address
    assert not plan_cluster("ant-media-cluster-unit", read({})).node.announces_address
