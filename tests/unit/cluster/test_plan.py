"""Tests of what follows from the settings, without Pulumi."""

from datetime import UTC, datetime
from typing import Any

from cluster.plan import ClusterPlan, plan_cluster
from cluster.settings.model import SECRETS
from cluster.settings.reader import read_settings
from tests.unit.program import SECRETS as SECRET_VALUES
from tests.unit.program import SETTINGS

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def plan(**settings: Any) -> ClusterPlan:
    raw = {**SECRET_VALUES, **SETTINGS, **settings}
    return plan_cluster("ant-media-cluster-unit", read_settings(raw, SECRETS, NOW))


def test_outputs_have_the_url_of_each_protocol() -> None:
    outputs = plan(domain="live.ant-media.test", applications='["LiveApp", "live"]').outputs
    assert outputs == {
        "rtmp_url": "rtmp://live.ant-media.test:1935/LiveApp",
        "rtmps_url": "rtmps://live.ant-media.test:1936/LiveApp",
        "publish_url": "https://live.ant-media.test/LiveApp/",
        "play_url": "https://live.ant-media.test:5443/LiveApp/",
        "panel_url": "https://live.ant-media.test:4444/",
        "statistics_url": "https://live.ant-media.test:6080/haproxy_stats",
        "certificate_names": ["live.ant-media.test"],
    }
    assert "rtmps_url" not in plan(rtmpsPort="0").outputs


def test_endpoint_check_covers_rtmp_only_if_the_operator_can_reach_it() -> None:
    assert plan(rtmpsPort="2936").endpoint_check.rtmp_ports == (1935, 2936)
    assert plan(rtmpsPort="0").endpoint_check.rtmp_ports == (1935,)
    assert plan(publisherCidrs='["203.0.113.0/24"]').endpoint_check.rtmp_ports == ()


def test_srt_urls_name_each_origin() -> None:
    origins = ["198.51.100.7", "198.51.100.8"]
    assert plan(srt="true", applications='["live"]').list_srt_urls(origins) == [
        "srt://198.51.100.7:4200?streamid=live/stream1",
        "srt://198.51.100.8:4200?streamid=live/stream1",
    ]
    assert plan().list_srt_urls(origins) == []
