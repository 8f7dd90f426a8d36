"""Drift reports: plain text for a terminal, and a Markdown issue of limited size with escaped content."""

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from operations.drift.findings import CLOUD, STATE, Difference, Drift, Unreachable
from operations.drift.report import format_issue, format_text
from operations.markdown import LIMIT

RULE = Difference(
    CLOUD, "by-hand-tcp-8080-8080-sgr-2", "Security group ingress rule, added by hand", ["+ToPort: 8080"]
)
CONFIGURATION = Difference(
    "load-balancer",
    "service-configuration",
    "apply-haproxy-config.sh",
    [
        "--- /etc/haproxy/haproxy.cfg as deployed",
        "+++ /etc/haproxy/haproxy.cfg now",
        "@@ -1 +1 @@",
        "-a",
        "+b",
    ],
    ("urn:1",),
)
DEAD = Unreachable("edge1", "no answer in time")
STOPPED = Difference(CLOUD, "edge2", "Instance, stopped", ["-running", "+stopped"], stopped_instance="i-2")

TEXT = """\
The cloud

  by-hand-tcp-8080-8080-sgr-2: Security group ingress rule, added by hand
    +ToPort: 8080

load-balancer

  service-configuration: apply-haproxy-config.sh
    --- /etc/haproxy/haproxy.cfg as deployed
    +++ /etc/haproxy/haproxy.cfg now
    @@ -1 +1 @@
    -a
    +b

Not checked
  edge1: no answer in time

1 resource and the result of 1 step differ from the state. `make up STACK=dev` runs 1 script again and restores 1 resource."""

ISSUE = """\
<!-- ant-media-cluster drift: dev -->
### `dev`: 1 resource and the result of 1 step differ from the state.

`make up STACK=dev` runs 1 script again and restores 1 resource.

> [!WARNING]
> **Not checked:**
> - `edge1`: `no answer in time`

**`the cloud`**: `by-hand-tcp-8080-8080-sgr-2`, `Security group ingress rule, added by hand`

```diff
+ToPort: 8080
```

**`load-balancer`**: `service-configuration`, `apply-haproxy-config.sh`

```diff
--- /etc/haproxy/haproxy.cfg as deployed
+++ /etc/haproxy/haproxy.cfg now
@@ -1 +1 @@
-a
+b
```
"""


def test_report_lists_differences_by_place_and_says_what_the_next_update_does() -> None:
    drift = Drift([RULE, CONFIGURATION], [DEAD])
    assert format_text("dev", drift) == TEXT
    assert format_issue("dev", drift) == ISSUE


def test_report_without_differences_is_one_sentence() -> None:
    assert format_text("dev", Drift([], [])) == "Nothing differs from the state."
    assert "Nothing differs from the state in the places that were checked." in format_text(
        "dev", Drift([], [DEAD])
    )
    assert format_text("dev", Drift([], [Unreachable(STATE, "no stack named 'dev' found")])) == (
        "Not checked\n  the state: no stack named 'dev' found\n\nNothing was compared."
    )


def test_report_of_a_stopped_machine_comes_with_the_command_that_starts_it() -> None:
    needed = "`make up STACK=dev` changes nothing while a machine is stopped. Start it first: `aws ec2 start-instances --instance-ids i-2`"
    assert format_text("dev", Drift([STOPPED], [])).endswith(f"1 resource differs from the state. {needed}")
    assert f"\n\n{needed}\n" in format_issue("dev", Drift([STOPPED], []))
    text = format_text("dev", Drift([STOPPED, replace(STOPPED, stopped_instance="i-3"), RULE], []))
    assert text.endswith(
        "while machines are stopped. Start them first: `aws ec2 start-instances --instance-ids i-2 i-3`\n"
        "`make up STACK=dev` restores 1 resource."
    )


def test_report_promises_no_restore_when_marking_failed() -> None:
    drift = Drift([CONFIGURATION], [], "the stack is locked")
    assert format_text("dev", drift).endswith(
        "The next update does not restore this, because marking it in the state failed: `the stack is locked`"
    )
    assert drift.exit_code == 2


def test_exit_code_is_2_when_something_was_not_checked_and_1_when_something_differs() -> None:
    assert [
        Drift(differences, unreachable).exit_code
        for differences in ([], [RULE])
        for unreachable in ([], [DEAD])
    ] == [0, 2, 1, 2]


lines = st.lists(st.text(max_size=300), max_size=400)


@given(st.lists(st.tuples(st.text(min_size=1, max_size=60), lines), max_size=12), lines)
def test_issue_stays_within_the_limit_and_closes_its_blocks(
    found: list[tuple[str, list[str]]], reasons: list[str]
) -> None:
    drift = Drift(
        [Difference(name, name, name, found_lines) for name, found_lines in found],
        [Unreachable("edge1", reason) for reason in reasons],
    )
    report = format_issue("dev", drift)
    assert len(report.encode()) <= LIMIT
    fences = re.findall(r"(?m)^(`{3,})(?:diff)?$", report)
    assert fences[::2] == fences[1::2]
    assert report.count("<details>") == report.count("</details>")
    assert "@everyone" not in re.sub(r"(`+).*?\1", "", report, flags=re.DOTALL)


def test_issue_says_what_is_left_out() -> None:
    long = Difference("edge1", "step", "script.sh", ["@@ 1 @@", *["+" + "x" * 100] * 2000])
    assert "lines are omitted.** `make drift STACK=dev` shows them." in format_issue(
        "dev", Drift([long] * 5, [])
    )
    assert "differences are omitted" in format_issue("dev", Drift([RULE] * 2000, []))


def test_issue_escapes_mentions_and_html_in_names_and_lines() -> None:
    hostile = "`@everyone` </summary></details><script>"
    for count in (1, 100):
        report = format_issue(
            "dev", Drift([Difference(hostile, hostile, hostile, [f"```\n{hostile}"] * count)], [])
        )
        outside = re.sub(r"(?ms)^(`{3,})diff$.*?^\1$|(`+)(?!`).*?(?<!`)\2(?!`)", "", report)
        assert "@everyone" not in outside
        assert "<script>" not in outside
        assert outside.count("</details>") == report.count("<details>") == (count > 1)
