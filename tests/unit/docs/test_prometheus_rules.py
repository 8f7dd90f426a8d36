"""Checks the alert rules in docs/. tests/integration/monitoring runs them, and an end-to-end test compares their metrics with those of a cluster."""

import re

from tests.project import PROJECT
from tests.promql import find_metrics, list_rules

SCRIPT = (PROJECT / "templates/scripts/balancer/record-certificate.sh").read_text()


def test_the_load_balancers_own_metrics_have_rules() -> None:
    own = set(re.findall(r"gauge (\w+) ", SCRIPT))
    assert own
    assert own <= set[str]().union(*(find_metrics(rule["expr"]) for rule in list_rules()))


def test_every_alert_has_severity_summary_and_description_and_names_its_cluster() -> None:
    for alert in (rule for rule in list_rules() if "alert" in rule):
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert set(alert["annotations"]) == {"summary", "description"}
        if "absent" not in alert["expr"]:
            assert "$labels.cluster" in "".join(alert["annotations"].values()), alert["alert"]


def test_the_page_on_monitoring_explains_every_alert() -> None:
    page = (PROJECT / "docs/monitoring.md").read_text()
    assert not [
        rule["alert"] for rule in list_rules() if "alert" in rule and f"`{rule['alert']}`" not in page
    ]
