"""The pull-request comment: its text, its maximum size, and the escaping of untrusted text."""

import json
import re
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.machine_scripts import pack
from operations.markdown import LIMIT
from operations.preview.changes import ManualChange, Preview, Step, parse_preview
from operations.preview.monthly_cost import Cost, CostLine
from operations.preview.report import PolicyResult, render_comment
from operations.resources import INSTANCE
from policy.rules import Violation

PREVIEWS = Path(__file__).parent / "previews"
RECORDED = sorted(path.stem for path in PREVIEWS.glob("*.json"))
KNOWN_SECRETS = [
    sha256(key.encode()).hexdigest()
    for key in ("sshHostKeySeed", "databasePassword", "statisticsPassword", "panelPassword")
]
COMMAND = "command:remote:Command"
NO_VIOLATIONS = PolicyResult(12, ())


def load_preview(name: str) -> Preview:
    return parse_preview((PREVIEWS / f"{name}.json").read_text())


def apply_haproxy_cfg(old: str, new: str) -> Step:
    run = {"create": "sudo /usr/local/lib/ant-media-cluster/apply-haproxy-config.sh"}
    return Step(
        "update",
        COMMAND,
        "service-configuration",
        "HAProxyService",
        {**run, "stdin": old},
        {**run, "stdin": new},
    )


def install_scripts(old: str, new: str) -> Step:
    run = {"create": "sudo timeout 600 bash -c '…' '' /usr/local/lib/ant-media-cluster"}
    return Step(
        "replace", COMMAND, "edge1-scripts", "MediaNodes", {**run, "stdin": old}, {**run, "stdin": new}
    )


@pytest.mark.parametrize("name", sorted(path.stem for path in PREVIEWS.glob("*.md")))
def test_comment_of_recorded_preview(name: str) -> None:
    assert (
        render_comment("sandbox", load_preview(name), NO_VIOLATIONS) == (PREVIEWS / f"{name}.md").read_text()
    )


def test_new_stack_shows_its_whole_haproxy_cfg() -> None:
    text = render_comment("pr-123", load_preview("new-stack"), NO_VIOLATIONS)
    assert text.startswith(
        "<!-- ant-media-cluster preview: pr-123 -->\n### `pr-123`: 45 to create, 21 scripts to run\n"
        "\n**Policies: 12 rules checked, none violated**\n"
        "\n<details><summary><b>haproxy.cfg: new, 228 lines</b></summary>\n\n```\n# Written by the deployment"
    )
    assert (
        "    server statistics-tls abns@statistics-tls send-proxy-v2\n```\n\n</details>\n\n<details><summary><b>Resources: 66"
        in text
    )
    assert "\n+ADDRESS=[unknown]\n" in text


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ({"ttl": 60}, {"ttl": 300}, "`ttl` `60` → `300`"),
        ({"ttl": 60}, {}, "`ttl` `60` → none"),
        ({"ids": ["a", "b"]}, {"ids": ["a", "c", "d"]}, '`ids[1]` `"b"` → `"c"`, `ids[2]` none → `"d"`'),
        ({"userData": "[secret]"}, {"userData": "[secret]"}, "`userData` `[secret]` changes"),
        (
            {"policy": '{"Statement": [{"Action": "a", "Effect": "Allow"}]}'},
            {"policy": '{"Statement": [{"Action": "b", "Effect": "Allow"}]}'},
            '`policy.Statement[0].Action` `"a"` → `"b"`',
        ),
        (
            {"text": "x" * 200 + " before"},
            {"text": "x" * 200 + " after"},
            f'`text` `"…{"x" * 19} before"` → `"…{"x" * 19} after"`',
        ),
    ],
)
def test_changed_property_shows_old_and_new_value(
    old: dict[str, Any], new: dict[str, Any], what: str
) -> None:
    step = Step("update", "aws:ec2/eip:Eip", "load-balancer-ip", "HAProxyLoadBalancer", old, new, tuple(old))
    text = render_comment("dev", Preview([step], ""), NO_VIOLATIONS)
    assert f"| change | `load-balancer-ip` | Elastic IP | HAProxyLoadBalancer | {what} |\n" in text


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        # A default tag, with version 6 of the AWS provider and with version 7.
        ({"tags": {"owner": "a"}}, {"tags": {"owner": "b"}}, '`tags.owner` `"a"` → `"b"`'),
        ({"tagsAll": {"owner": "a"}}, {"tagsAll": {"owner": "b"}}, '`tagsAll.owner` `"a"` → `"b"`'),
        # A tag of the program, which version 7 has in both properties.
        (
            {"tags": {"Name": "a"}, "tagsAll": {"Name": "a", "owner": "o"}},
            {"tags": {"Name": "b"}, "tagsAll": {"Name": "b", "owner": "o"}},
            '`tagsAll.Name` `"a"` → `"b"`',
        ),
        # A default tag that somebody changed by hand.
        (
            {"tags": {}, "tagsAll": {"owner": "a"}},
            {"tags": {"owner": "b"}, "tagsAll": {"owner": "b"}},
            '`tagsAll.owner` `"a"` → `"b"`',
        ),
        # A tag that the program no longer gives, but that is a default tag.
        (
            {"tags": {"a": "1", "Name": "x"}, "tagsAll": {"a": "1", "Name": "x"}},
            {"tags": {"Name": "y"}, "tagsAll": {"a": "1", "Name": "y"}},
            '`tags.a` `"1"` → none, `tagsAll.Name` `"x"` → `"y"`',
        ),
    ],
)
def test_changed_tag_is_shown_once(old: dict[str, Any], new: dict[str, Any], what: str) -> None:
    step = Step("update", INSTANCE, "edge1", "MediaNodes", old, new, tuple(old))
    text = render_comment("dev", Preview([step], ""), NO_VIOLATIONS)
    assert f"| change | `edge1` | Instance | MediaNodes | {what} |\n" in text


def test_new_resource_is_shown_without_tags() -> None:
    inputs = {"tags": {"Name": "a"}, "tagsAll": {"Name": "a", "owner": "o"}, "ttl": 60}
    step = Step("create", "aws:route53/record:Record", "live", "DNSRecord", {}, inputs)
    text = render_comment("dev", Preview([step], ""), NO_VIOLATIONS)
    assert "| create | `live` | Record | DNSRecord | `ttl` `60` |\n" in text


def test_violations_come_first_and_are_counted_in_the_headline() -> None:
    tags = "has no tag owner; set aws:defaultTags"
    found = [
        Violation("tags", "edge1", tags),
        Violation("tags", "edge2", tags),
        Violation("protected-resources", "", "load-balancer-ip must exist, but is missing"),
    ]
    text = render_comment("dev", load_preview("larger-edges"), PolicyResult(12, found))
    assert text.splitlines()[1] == ("### `dev`: **3 policy violations**, 2 to change, 6 scripts to run")
    assert text.split("\n\n")[2] == (
        "> [!CAUTION]\n"
        "> **Policies: 12 rules checked. Do not deploy this:**\n"
        f"> - `edge1`, `edge2` (`tags`): `{tags}`\n"
        "> - `the whole stack` (`protected-resources`): `load-balancer-ip must exist, but is missing`"
    )


def test_warnings_of_the_program_come_first() -> None:
    warning = {"severity": "warning", "message": "Stopped machines: dev-edge1 (i-1).\nStart them\n"}
    text = render_comment("dev", parse_preview(json.dumps({"diagnostics": [warning]})), NO_VIOLATIONS)
    assert text == (
        "<!-- ant-media-cluster preview: dev -->\n### `dev`: nothing changes\n"
        "\n> [!WARNING]\n> `Stopped machines: dev-edge1 (i-1). Start them`\n"
        "\n**Policies: 12 rules checked, none violated**\n"
    )


def test_cost_shows_its_change_and_what_has_no_price() -> None:
    lines = [CostLine("c5.large", 10, 12, Decimal(100)), CostLine("GiB of volumes", 30, 30, Decimal("0.1"))]
    text = render_comment("dev", load_preview("nothing"), NO_VIOLATIONS, Cost("USD", lines, ["m7i.large"]))
    assert text.endswith(
        "\n**Cost: ≈ 1,003.00 → 1,203.00 USD a month (+200.00)**. "
        "Not included, because `prices.json` has no price: `m7i.large`.\n"
        "\n<details><summary><b>Cost by kind</b></summary>\n\n"
        "| | now | after | a month now | a month after |\n"
        "|---|--:|--:|--:|--:|\n"
        "| `c5.large` | 10 | 12 | 1,000.00 | 1,200.00 |\n"
        "| GiB of volumes | 30 | 30 | 3.00 | 3.00 |\n"
        "\n</details>\n"
    )
    same = render_comment("dev", load_preview("nothing"), NO_VIOLATIONS, Cost("USD", lines[1:], []))
    assert "\n**Cost: ≈ 3.00 USD a month, unchanged**\n" in same


def test_machines_are_sorted_by_number() -> None:
    urn = "urn:pulumi:dev::ant-media-cluster::aws:ec2/instance:Instance::edge"
    steps = [
        {"op": "delete", "urn": f"{urn}{number}", "oldState": {"custom": True}} for number in (10, 9, 1, 2)
    ]
    names = [step.name for step in parse_preview(json.dumps({"steps": steps})).steps]
    assert names == ["edge1", "edge2", "edge9", "edge10"]


@pytest.mark.parametrize("name", RECORDED)
def test_comment_contains_no_secret(name: str) -> None:
    text = (PREVIEWS / f"{name}.json").read_text() + render_comment(
        "sandbox", load_preview(name), NO_VIOLATIONS
    )
    assert [secret for secret in KNOWN_SECRETS if secret in text] == []
    assert "PRIVATE KEY" not in text


def test_changed_script_is_shown_as_a_diff_of_its_text() -> None:
    # The first form is that of releases before, which did not compress the scripts.
    bundle, scripts = "=== a.sh\necho 1\n=== b.sh\necho 2\n", {"a.sh": "echo 1\n", "b.sh": "echo 3\n"}
    for old in (bundle, pack({**scripts, "b.sh": "echo 2\n"})):
        text = render_comment("dev", Preview([install_scripts(old, pack(scripts))], ""), NO_VIOLATIONS)
        assert " === a.sh\n echo 1\n === b.sh\n-echo 2\n+echo 3\n" in text
        assert "echo 3" not in render_comment(
            "dev",
            Preview([install_scripts(bundle, pack({**scripts, "b.sh": "echo 2\n"}))], ""),
            NO_VIOLATIONS,
        )


def test_configuration_and_outputs_are_not_read() -> None:
    preview: dict[str, Any] = json.loads((PREVIEWS / "third-edge-goes.json").read_text())
    preview["config"] = {"aws:secretKey": KNOWN_SECRETS[0]}
    for step in preview["steps"]:
        for state in ("oldState", "newState"):
            step.get(state, {})["outputs"] = {"stdout": KNOWN_SECRETS[0], "create": KNOWN_SECRETS[0]}
    assert parse_preview(json.dumps(preview)) == load_preview("third-edge-goes")


# Size


def test_long_diff_is_cut_between_two_hunks() -> None:
    old = [f"line {number} of a long file {'-' * 40}" for number in range(4_000)]
    new = [f"{line} changed" if number % 20 == 0 else line for number, line in enumerate(old)]
    text = render_comment(
        "dev", Preview([apply_haproxy_cfg("\n".join(old), "\n".join(new))], ""), NO_VIOLATIONS
    )
    diff, after = text.partition("```diff\n")[2].split("\n```\n", 1)
    hunks = re.findall(r"^@@ .*\n((?:[ +-].*\n?)*)", diff, re.MULTILINE)
    assert len(hunks) < 200
    assert f"\n line {(len(hunks) - 1) * 20 + 3} of" in f"\n{diff.splitlines()[-1]}"
    # Seven lines, one of them old and new, and a header. The first hunk has three lines less: nothing precedes it.
    shown, of = len(diff.splitlines()), 200 * 9 - 3
    assert after.startswith(
        f"\n**{of - shown} of {of} lines are omitted.** "
        "`pulumi preview --diff --show-full-output --stack dev` shows them.\n\n</details>\n"
    )
    assert LIMIT - 3000 < len(text.encode()) <= LIMIT


def test_long_haproxy_cfg_leaves_space_for_other_sections() -> None:
    small = load_preview("another-domain").steps
    text = render_comment(
        "dev", Preview([apply_haproxy_cfg("", "a line\n" * 50_000), *small[1:]], ""), NO_VIOLATIONS
    )
    rest = render_comment("dev", Preview(small, ""), NO_VIOLATIONS)
    assert "lines are omitted" in text
    assert (
        text.partition("<summary><b>Command diffs: ")[2] == rest.partition("<summary><b>Command diffs: ")[2]
    )
    assert len(text.encode()) <= LIMIT


def test_long_sections_share_the_space() -> None:
    nodes = [
        Step(
            "update",
            COMMAND,
            f"edge{number}-a",
            "MediaNodes",
            {"create": "a"},
            {"create": f"b {number}"},
            ("create",),
        )
        for number in range(1000)
    ]
    text = render_comment(
        "dev", Preview([apply_haproxy_cfg("", "a line\n" * 50_000), *nodes], ""), NO_VIOLATIONS
    )
    sections = [section.splitlines() for section in text.split("<details>")[1:]]
    assert [re.findall(r"\*\*\d+ of (\d+ \w+) are omitted", "\n".join(section)) for section in sections] == [
        ["50001 lines"],
        ["1001 rows"],
        ["1000 diffs"],
    ]
    assert all(len("\n".join(section)) > 17_000 for section in sections)
    assert len(text) < 65_536 - 3000


def test_backticks_in_the_error_do_not_end_the_code_block() -> None:
    text = render_comment("dev", Preview([], "```\n@everybody\n````"), NO_VIOLATIONS)
    assert text.endswith("\n\n`````text\n```\n@everybody\n````\n`````\n")


TEXT = st.text(alphabet="a1 `|<>@#&\\\"'*_~[]()!-+=\n\r\t\0\u202e\ud800é{}", max_size=40)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT | TEXT.map(lambda text: text * 300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
INPUTS = st.fixed_dictionaries(
    {},
    optional={
        "create": TEXT | st.just("x/apply-haproxy-config.sh"),
        "stdin": TEXT.map(lambda text: text * 2000) | TEXT,
        "instanceType": VALUE,
        "a`|b": VALUE,
    },
)
STEP = st.builds(
    Step,
    op=st.sampled_from(["create", "update", "replace", "delete", "import"]),
    type=st.sampled_from([INSTANCE, COMMAND, "aws:ec2/eip:Eip"]),
    name=TEXT,
    component=st.just("MediaNodes"),
    old=INPUTS,
    new=INPUTS,
    changed=st.lists(st.sampled_from(["stdin", "create", "instanceType", "a`|b"]), max_size=3).map(tuple),
)


def remove_code(markdown: str) -> str:
    """Removes inline code and code blocks as CommonMark defines them. The rest is Markdown or HTML."""
    left: list[str] = []
    fence = ""
    for line in markdown.splitlines():
        ticks = re.match("`{3,}", line)
        if fence:
            fence = "" if re.fullmatch(f"{fence}`*", line) else fence
        elif ticks and "`" not in line[ticks.end() :]:
            fence = ticks[0]
        else:
            assert not line.startswith("|") or line.count("|") == 6
            left.append(re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", line))
    assert not fence
    return "\n".join(left)


@given(
    st.lists(STEP, max_size=12),
    TEXT,
    st.lists(st.builds(ManualChange, change=STEP, outcome=st.just("keeps the change")), max_size=3),
    st.lists(
        st.builds(Violation, rule=TEXT, resource=TEXT, message=TEXT.map(lambda text: text * 100)), max_size=9
    ),
)
def test_untrusted_text_stays_in_code_and_under_the_limit(
    steps: list[Step], error: str, manual_changes: list[ManualChange], found: list[Violation]
) -> None:
    cost = Cost("USD", [CostLine(error, 1, 2, Decimal(1))], [error])
    for text in (
        render_comment("dev", Preview(steps, "", manual_changes), PolicyResult(12, found), cost),
        render_comment("dev", Preview([], error or "x"), NO_VIOLATIONS),
        render_comment("dev", Preview([], error or "x", protected=[error]), NO_VIOLATIONS),
    ):
        assert len(text.encode()) <= LIMIT
        plain = remove_code(text)
        assert re.findall(r"[@`]|#\d", plain) == []
        tags = r"</?(details|summary|b)>|<!-- ant-media-cluster preview: dev -->"
        assert "<" not in re.sub(tags, "", plain)
        assert text.count("<details>") == text.count("</details>")
