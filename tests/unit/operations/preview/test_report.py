"""The comment on a pull request: how it reads, that it fits, and that nothing gets out of it."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operations.markdown import LIMIT
from operations.preview.changes import ByHand, Preview, Step, read_preview
from operations.preview.monthly_cost import Cost, Line
from operations.preview.report import Policies, comment
from policy.rules import RULES, Violation, find_violations, read_config

PREVIEWS = Path(__file__).parent / "previews"
RECORDED = sorted(path.stem for path in PREVIEWS.glob("*.json"))
KNOWN_SECRETS = [
    sha256(key.encode()).hexdigest()
    for key in ("sshHostKeySeed", "databasePassword", "statisticsPassword", "panelPassword")
]
INSTANCE, COMMAND = "aws:ec2/instance:Instance", "command:remote:Command"


KEPT = Policies(12, ())


def recorded(name: str) -> Preview:
    return read_preview((PREVIEWS / f"{name}.json").read_text())


def haproxy(old: str, new: str) -> Step:
    run = {"create": "sudo /usr/local/lib/ant-media-cluster/apply-haproxy-config.sh"}
    return Step(
        "update",
        COMMAND,
        "service-configuration",
        "HAProxyService",
        {**run, "stdin": old},
        {**run, "stdin": new},
    )


@pytest.mark.parametrize("name", sorted(path.stem for path in PREVIEWS.glob("*.md")))
def test_a_comment_reads_like_this(name: str) -> None:
    assert comment("sandbox", recorded(name), KEPT) == (PREVIEWS / f"{name}.md").read_text()


def test_a_stack_that_does_not_exist_yet_shows_its_whole_haproxy_cfg_folded() -> None:
    text = comment("pr-123", recorded("new-stack"), KEPT)
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
        ({"userData": "[secret]"}, {"userData": "[secret]"}, "`userData` `[secret]` is another"),
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
def test_a_changed_property_reads_like_this(old: dict[str, Any], new: dict[str, Any], what: str) -> None:
    step = Step("update", "aws:ec2/eip:Eip", "load-balancer-ip", "HAProxyLoadBalancer", old, new, tuple(old))
    text = comment("dev", Preview([step], ""), KEPT)
    assert f"| change | `load-balancer-ip` | Elastic IP | HAProxyLoadBalancer | {what} |\n" in text


def test_violations_are_in_the_headline_and_first_of_all() -> None:
    tags = "has no tag owner; set aws:defaultTags"
    found = [
        Violation("tags", "edge1", tags),
        Violation("tags", "edge2", tags),
        Violation("protected-resources", "", "load-balancer-ip must exist, but is missing"),
    ]
    text = comment("dev", recorded("larger-edges"), Policies(12, found))
    assert text.splitlines()[1] == ("### `dev`: **3 policy violations**, 2 to change, 6 scripts to run")
    assert text.split("\n\n")[2] == (
        "> [!CAUTION]\n"
        "> **Policies: 12 rules checked. This must not be deployed:**\n"
        f"> - `edge1`, `edge2` (`tags`): `{tags}`\n"
        "> - `the whole stack` (`protected-resources`): `load-balancer-ip must exist, but is missing`"
    )


def test_the_cost_is_told_with_its_change_and_what_is_not_in_it() -> None:
    lines = [Line("c5.large", 10, 12, Decimal(100)), Line("GiB of volumes", 30, 30, Decimal("0.1"))]
    text = comment("dev", recorded("nothing"), KEPT, Cost("USD", lines, ["m7i.large"]))
    assert text.endswith(
        "\n**Cost: ≈ 1,003.00 → 1,203.00 USD a month (+200.00)**. "
        "Not in it, for want of a price in `prices.json`: `m7i.large`.\n"
        "\n<details><summary><b>Cost by kind</b></summary>\n\n"
        "| | now | then | a month now | a month then |\n"
        "|---|--:|--:|--:|--:|\n"
        "| `c5.large` | 10 | 12 | 1,000.00 | 1,200.00 |\n"
        "| GiB of volumes | 30 | 30 | 3.00 | 3.00 |\n"
        "\n</details>\n"
    )
    same = comment("dev", recorded("nothing"), KEPT, Cost("USD", lines[1:], []))
    assert "\n**Cost: ≈ 3.00 USD a month, as before**\n" in same


def test_machines_stand_in_the_order_of_their_numbers() -> None:
    urn = "urn:pulumi:dev::ant-media-cluster::aws:ec2/instance:Instance::edge"
    steps = [
        {"op": "delete", "urn": f"{urn}{number}", "oldState": {"custom": True}} for number in (10, 9, 1, 2)
    ]
    names = [step.name for step in read_preview(json.dumps({"steps": steps})).steps]
    assert names == ["edge1", "edge2", "edge9", "edge10"]


@pytest.mark.parametrize("name", RECORDED)
def test_no_secret_is_in_a_comment(name: str) -> None:
    text = (PREVIEWS / f"{name}.json").read_text() + comment("sandbox", recorded(name), KEPT)
    assert [secret for secret in KNOWN_SECRETS if secret in text] == []
    assert "PRIVATE KEY" not in text


def test_neither_the_configuration_nor_any_output_is_read() -> None:
    preview: dict[str, Any] = json.loads((PREVIEWS / "third-edge-goes.json").read_text())
    preview["config"] = {"aws:secretKey": KNOWN_SECRETS[0]}
    for step in preview["steps"]:
        for state in ("oldState", "newState"):
            step.get(state, {})["outputs"] = {"stdout": KNOWN_SECRETS[0], "create": KNOWN_SECRETS[0]}
    assert read_preview(json.dumps(preview)) == recorded("third-edge-goes")


# Size


def test_a_long_diff_is_cut_between_two_hunks_and_says_so() -> None:
    old = [f"line {number} of a long file {'-' * 40}" for number in range(4_000)]
    new = [f"{line} changed" if number % 20 == 0 else line for number, line in enumerate(old)]
    text = comment("dev", Preview([haproxy("\n".join(old), "\n".join(new))], ""), KEPT)
    diff, after = text.partition("```diff\n")[2].split("\n```\n", 1)
    hunks = re.findall(r"^@@ .*\n((?:[ +-].*\n?)*)", diff, re.MULTILINE)
    assert len(hunks) < 200
    assert f"\n line {(len(hunks) - 1) * 20 + 3} of" in f"\n{diff.splitlines()[-1]}"
    # Seven lines, one of them in two versions, and a header; the first has nothing before it.
    shown, of = len(diff.splitlines()), 200 * 9 - 3
    assert after.startswith(
        f"\n**{of - shown} of {of} lines are cut here.** "
        "`pulumi preview --diff --show-full-output --stack dev` shows them.\n\n</details>\n"
    )
    assert LIMIT - 3000 < len(text.encode()) <= LIMIT


def test_a_long_haproxy_cfg_leaves_room_for_everything_else() -> None:
    small = recorded("another-domain").steps
    text = comment("dev", Preview([haproxy("", "a line\n" * 50_000), *small[1:]], ""), KEPT)
    rest = comment("dev", Preview(small, ""), KEPT)
    assert "lines are cut here" in text
    assert text.partition("<summary><b>Commands: ")[2] == rest.partition("<summary><b>Commands: ")[2]
    assert len(text.encode()) <= LIMIT


def test_what_is_long_shares_the_room() -> None:
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
    text = comment("dev", Preview([haproxy("", "a line\n" * 50_000), *nodes], ""), KEPT)
    sections = [section.splitlines() for section in text.split("<details>")[1:]]
    assert [re.findall(r"\*\*\d+ of (\d+ \w+) are cut here", "\n".join(section)) for section in sections] == [
        ["50001 lines"],
        ["1001 rows"],
        ["1000 commands"],
    ]
    assert all(len("\n".join(section)) > 17_000 for section in sections)
    assert len(text) < 65_536 - 3000


def test_a_fence_in_what_is_shown_ends_nothing() -> None:
    text = comment("dev", Preview([], "```\n@everybody\n````"), KEPT)
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


def outside_code(markdown: str) -> str:
    """What is left to be Markdown or HTML where code is taken out, as CommonMark finds it."""
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
    st.lists(st.builds(ByHand, change=STEP, then=st.just("leaves it so")), max_size=3),
    st.lists(
        st.builds(Violation, rule=TEXT, resource=TEXT, message=TEXT.map(lambda text: text * 100)), max_size=9
    ),
)
def test_whatever_resources_hold_stays_in_code_and_under_the_limit(
    steps: list[Step], error: str, by_hand: list[ByHand], found: list[Violation]
) -> None:
    cost = Cost("USD", [Line(error, 1, 2, Decimal(1))], [error])
    for text in (
        comment("dev", Preview(steps, "", by_hand), Policies(12, found), cost),
        comment("dev", Preview([], error or "x"), KEPT),
        comment("dev", Preview([], error or "x", protected=[error]), KEPT),
    ):
        assert len(text.encode()) <= LIMIT
        plain = outside_code(text)
        assert re.findall(r"[@`]|#\d", plain) == []
        tags = r"</?(details|summary|b)>|<!-- ant-media-cluster preview: dev -->"
        assert "<" not in re.sub(tags, "", plain)
        assert text.count("<details>") == text.count("</details>")


# The command


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "operations.preview", "sandbox", *command],
        capture_output=True,
        text=True,
        env={**os.environ, "COMMIT": "", **environment},
    )


def test_the_command_prints_the_comment() -> None:
    ran = run("echo", '{"steps": []}')
    assert (ran.returncode, ran.stdout) == (0, comment("sandbox", Preview([], ""), Policies(len(RULES), ())))


def test_a_violation_is_in_the_comment_and_fails() -> None:
    # In the recording what stays has lost its tags.
    preview = recorded("third-edge-goes")
    found = find_violations(preview.after, read_config("sandbox"))
    ran = run("cat", str(PREVIEWS / "third-edge-goes.json"))
    assert (ran.returncode, ran.stdout) == (1, comment("sandbox", preview, Policies(len(RULES), found)))
    assert "This must not be deployed" in ran.stdout


def test_with_prices_the_comment_tells_the_cost(tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(
        '{"currency": "USD", "hoursAMonth": 1, "instanceHour": {"c5.xlarge": 100, "t3.small": 0, "t3.micro": 0},'
        ' "volumeGibMonth": 0, "publicIpv4Hour": 0, "secretMonth": 0}'
    )
    ran = run("cat", str(PREVIEWS / "third-edge-goes.json"), PRICES=str(prices))
    assert "**Cost: ≈ 500.00 → 400.00 USD a month (-100.00)**\n" in ran.stdout
    prices.write_text("{}")
    refused = run("false", PRICES=str(prices))
    assert refused.returncode == 1
    assert "\nprices.json: secretMonth: is missing; give a number" in refused.stdout
    missing = run("false", PRICES="nowhere.json")
    assert "PRICES=nowhere.json: No such file or directory" in missing.stderr


def test_a_preview_that_fails_is_a_comment_too_and_fails() -> None:
    ran = run("sh", "-c", f"cat {PREVIEWS / 'wrong-settings.json'}; exit 255")
    assert (ran.returncode, ran.stdout) == (255, (PREVIEWS / "wrong-settings.md").read_text())


def test_a_preview_that_is_cut_off_ends_the_engine_in_order_and_is_a_comment_too() -> None:
    engine = (
        "trap 'echo engine ended >&2; exit 0' INT; echo begun >&2; echo >&3; while :; do sleep 0.05; done"
    )
    begun, begin = os.pipe()
    # A descriptor does not pass the script: the engine says by a named one that it runs.
    engine = engine.replace("&3", f"/proc/{os.getpid()}/fd/{begin}")
    command = [sys.executable, "-m", "operations.preview", "sandbox", "sh", "-c", engine]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores it, and so would whatever it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as ran:
        os.read(begun, 1)
        ran.send_signal(signal.SIGINT)
        stdout, stderr = ran.communicate(timeout=10)
    os.close(begun)
    os.close(begin)
    assert (ran.returncode, stderr) == (130, "begun\nengine ended\n")
    assert stdout.startswith(
        "<!-- ant-media-cluster preview: sandbox -->\n### `sandbox`: the preview failed\n"
    )
    assert "the preview was interrupted" in stdout


@pytest.mark.parametrize("command", [("echo", '{"steps": [{}]}'), ("no-such-engine",)])
def test_what_nobody_expected_is_a_comment_too_and_fails(command: Sequence[str]) -> None:
    ran = run(*command)
    assert ran.returncode == 1
    assert ran.stdout.startswith(
        "<!-- ant-media-cluster preview: sandbox -->\n### `sandbox`: the preview failed\n"
    )


def test_the_comment_names_the_commit_where_it_is_known() -> None:
    ran = run("echo", '{"steps": []}', COMMIT="0123456789abcdef")
    assert ran.stdout.endswith("\n\nAt commit `01234567`.\n")


@pytest.mark.parametrize("stdout", ["", "{}"])
def test_what_pulumi_says_before_the_program_starts_is_in_the_comment_and_on_standard_error(
    stdout: str,
) -> None:
    ran = run("sh", "-c", f"echo '{stdout}'; echo 'error: no stack selected' >&2; exit 255")
    assert ran.stdout.endswith(
        "### `sandbox`: the preview failed\n\n```text\nerror: no stack selected\n```\n"
    )
    assert (ran.returncode, ran.stderr) == (255, "error: no stack selected\n")
