"""Drift as it reads: on a terminal, and as an issue that fits and holds no Markdown but its own."""

import re

from hypothesis import given
from hypothesis import strategies as st

from operations.drift.findings import CLOUD, STATE, Difference, Drift, Unseen
from operations.drift.report import issue, text
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
DEAD = Unseen("edge1", "no answer in time")
STOPPED = Difference(CLOUD, "edge2", "Instance, stopped", ["+instanceState: stopped"], healed=False)

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

Not looked at
  edge1: no answer in time

1 resource and the work of 1 step differ from the state. `make up STACK=dev` runs 1 script again and puts 1 resource right."""

ISSUE = """\
<!-- ant-media-cluster drift: dev -->
### `dev`: 1 resource and the work of 1 step differ from the state.

`make up STACK=dev` runs 1 script again and puts 1 resource right.

> [!WARNING]
> **Not looked at:**
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


def test_a_report_tells_what_differs_where_and_what_to_do() -> None:
    drift = Drift([RULE, CONFIGURATION], [DEAD])
    assert text("dev", drift) == TEXT
    assert issue("dev", drift) == ISSUE


def test_no_drift_is_told_in_a_sentence() -> None:
    assert text("dev", Drift([], [])) == "Nothing differs from the state."
    assert "Nothing differs as far as could be seen." in text("dev", Drift([], [DEAD]))
    assert text("dev", Drift([], [Unseen(STATE, "no stack named 'dev' found")])) == (
        "Not looked at\n  the state: no stack named 'dev' found\n\nNothing was compared."
    )


def test_what_no_update_heals_is_not_promised() -> None:
    assert text("dev", Drift([STOPPED], [])).endswith("1 resource differs from the state.")


def test_what_cannot_be_marked_is_not_promised_either() -> None:
    drift = Drift([CONFIGURATION], [], "the stack is locked")
    assert text("dev", drift).endswith("No update was told to put it right: `the stack is locked`")
    assert drift.status == 2


def test_the_status_says_whether_all_was_seen_before_it_says_whether_something_differs() -> None:
    assert [Drift(found, unseen).status for found in ([], [RULE]) for unseen in ([], [DEAD])] == [0, 2, 1, 2]


lines = st.lists(st.text(max_size=300), max_size=400)


@given(st.lists(st.tuples(st.text(min_size=1, max_size=60), lines), max_size=12), lines)
def test_an_issue_fits_and_is_whole_whatever_it_holds(
    found: list[tuple[str, list[str]]], whys: list[str]
) -> None:
    drift = Drift(
        [Difference(name, name, name, found_lines) for name, found_lines in found],
        [Unseen("edge1", why) for why in whys],
    )
    report = issue("dev", drift)
    assert len(report.encode()) <= LIMIT
    fences = re.findall(r"(?m)^(`{3,})(?:diff)?$", report)
    assert fences[::2] == fences[1::2]
    assert report.count("<details>") == report.count("</details>")
    assert "@everyone" not in re.sub(r"(`+).*?\1", "", report, flags=re.DOTALL)


def test_what_does_not_fit_is_said_to_be_cut() -> None:
    long = Difference("edge1", "step", "script.sh", ["@@ 1 @@", *["+" + "x" * 100] * 2000])
    assert "lines are cut here.** `make drift STACK=dev` shows them." in issue("dev", Drift([long] * 5, []))
    assert "differences are cut here" in issue("dev", Drift([RULE] * 2000, []))


def test_hostile_names_and_lines_call_nobody_and_close_nothing() -> None:
    hostile = "`@everyone` </summary></details><script>"
    for count in (1, 100):
        report = issue("dev", Drift([Difference(hostile, hostile, hostile, [f"```\n{hostile}"] * count)], []))
        outside = re.sub(r"(?ms)^(`{3,})diff$.*?^\1$|(`+)(?!`).*?(?<!`)\2(?!`)", "", report)
        assert "@everyone" not in outside
        assert "<script>" not in outside
        assert outside.count("</details>") == report.count("<details>") == (count > 1)
