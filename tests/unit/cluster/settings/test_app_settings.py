"""Tests of `applicationSettings`."""

import json
from datetime import UTC, datetime

import pytest

from cluster.plan import plan_cluster
from cluster.settings.model import SECRETS, Settings
from cluster.settings.reader import SettingsError, read_settings
from tests.unit.program import SECRETS as SECRET_VALUES
from tests.unit.program import SETTINGS

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
KEY = "applicationSettings"


def read(values: object, encrypted: bool = False) -> Settings:
    secret_keys = [*SECRETS, KEY] if encrypted else SECRETS
    return read_settings({**SECRET_VALUES, **SETTINGS, KEY: json.dumps(values)}, secret_keys, NOW)


def read_problems(values: object, encrypted: bool = False) -> list[str]:
    with pytest.raises(SettingsError) as error:
        read(values, encrypted)
    return [line.removeprefix(f"ant-media-cluster:{KEY}.") for line in str(error.value).splitlines()]


def test_own_values_of_an_application_take_precedence_over_those_of_all() -> None:
    settings = read({"*": {"hlsTime": 2, "gopSize": 60}, "live": {"hlsTime": "4"}, "LiveApp": {}})
    plan = plan_cluster("ant-media-cluster-unit", settings).node.app_settings
    assert plan
    # hlsTime is a text in AMS; `pulumi config set --path` makes a number of it.
    assert json.loads(plan.public) == {
        "LiveApp": {"gopSize": 60, "hlsTime": "2"},
        "WebRTCAppEE": {"gopSize": 60, "hlsTime": "2"},
        "live": {"gopSize": 60, "hlsTime": "4"},
    }
    assert plan_cluster("ant-media-cluster-unit", read({"LiveApp": {}})).node.app_settings is None


def test_secret_settings_are_separate_from_those_that_previews_show() -> None:
    settings = read({"live": {"jwtControlEnabled": True, "jwtSecretKey": "hunter2"}}, encrypted=True)
    plan = plan_cluster("ant-media-cluster-unit", settings).node.app_settings
    assert plan
    assert json.loads(plan.public) == {"live": {"jwtControlEnabled": True}}
    assert json.loads(plan.secret.get_secret_value()) == {"live": {"jwtSecretKey": "hunter2"}}


def test_every_mistake_is_reported_with_its_remedy() -> None:
    assert read_problems(
        {
            "Live": {},
            "live": {
                "settings.remoteAllowedCIDR": "127.0.0.1",
                "hlsMuxingEnable": True,
                "mp4MuxingEnabled": "yes",
                "gopSize": True,
                "encoderSettings": {},
                "webRTCPortRangeMin": 40000,
                "allowedPublisherCIDR": "203.0.113.0/24",
                "color": "red",
            },
        }
    ) == [
        "Live is not valid: applications does not list this application: give LiveApp, WebRTCAppEE, live, or * for all of them",
        'live.allowedPublisherCIDR is "203.0.113.0/24": Ant Media Server would compare it with the load balancer\'s '
        "address: list the networks in publisherCidrs",
        "live.color is not valid: Ant Media Server 3 has no application setting of this name: "
        "cluster/settings/app_settings.json lists them",
        "live.encoderSettings is {}: give a list",
        "live.gopSize is true: give a number",
        "live.hlsMuxingEnable is not valid: Ant Media Server 3 has no application setting of this name: did you mean hlsMuxingEnabled?",
        'live.mp4MuxingEnabled is "yes": give true or false',
        "live.webRTCPortRangeMin is 40000: nodes accept WebRTC media on 50000 to 60000: give a port in this range",
        'live["settings.remoteAllowedCIDR"] is not valid: Ant Media Server 3 has no application setting of this name: '
        "did you mean remoteAllowedCIDR?",
    ]


def test_secret_in_plain_text_is_refused_and_not_shown() -> None:
    problems = read_problems({"live": {"jwtSecretKey": "hunter2", "s3SecretKey": []}})
    assert problems == [
        "live.jwtSecretKey is in plain text: encrypt it with pulumi config set --secret --path "
        "'ant-media-cluster:applicationSettings.live.jwtSecretKey', "
        "and give a new value if anyone else may have read this one",
        "live.s3SecretKey is in plain text: encrypt it with pulumi config set --secret --path "
        "'ant-media-cluster:applicationSettings.live.s3SecretKey', "
        "and give a new value if anyone else may have read this one",
        "live.s3SecretKey is not valid: give a text",
    ]
    assert "hunter2" not in "".join(problems)


def test_values_of_another_shape_are_refused() -> None:
    assert read_problems({"live": "fast"}) == [
        "live is not valid: give an object: set each of its keys with "
        "pulumi config set --path ant-media-cluster:applicationSettings.live.NAME VALUE"
    ]
    assert read_problems({"jwtSecretKey": "hunter2"}) == [
        "jwtSecretKey is not valid: put it under an application, or under * for all of them: "
        "pulumi config set --path ant-media-cluster:applicationSettings.*.jwtSecretKey VALUE"
    ]


def test_settings_of_an_application_that_contradict_each_other_are_refused() -> None:
    token = "Ant Media Server allows one kind of token control: set"
    assert read_problems(
        {
            "*": {"playJwtControlEnabled": True, "webRTCPortRangeMin": 55000},
            "LiveApp": {"playTokenControlEnabled": True, "publishTokenControlEnabled": True},
            "WebRTCAppEE": {"publishJwtControlEnabled": True, "enableTimeTokenForPublish": True},
            "live": {"webRTCPortRangeMax": 51000},
        }
    ) == [
        f"LiveApp.playTokenControlEnabled is true: {token} playJwtControlEnabled to false, or this one",
        f"WebRTCAppEE.publishJwtControlEnabled is true: {token} enableTimeTokenForPublish to false, or this one",
        "live.webRTCPortRangeMax is 51000: the range would be 55000 to 51000: give a minimum that is not above the maximum",
    ]
    own = {"playTokenControlEnabled": True, "playJwtControlEnabled": False, "webRTCPortRangeMax": 55000}
    read({"*": {"playJwtControlEnabled": True, "webRTCPortRangeMin": 55000}, "LiveApp": own})


@pytest.mark.parametrize("networks", ["", "127.0.0.1", "127.0.0.1, 203.0.113.7/24,2001:db8::/32"])
def test_backends_that_may_use_the_rest_api_are_addresses_and_networks(networks: str) -> None:
    assert read({"live": {"remoteAllowedCIDR": networks}})


@pytest.mark.parametrize(
    "networks", ["203.0.113.0/33", "127.0.0.1;10.0.0.1", "backend.test", "10.0.0.0/255.0.0.0"]
)
def test_what_the_server_would_ignore_among_these_networks_is_refused(networks: str) -> None:
    assert read_problems({"live": {"remoteAllowedCIDR": networks}}) == [
        f'live.remoteAllowedCIDR is "{networks}": give addresses or networks, separated by commas: '
        "127.0.0.1,203.0.113.0/24, for example"
    ]
