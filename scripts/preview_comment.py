"""Print what a preview would change as Markdown, for a comment on a pull request.

usage: preview_comment.py STACK COMMAND...

COMMAND is one that previews with --json --show-sames: the engine blinds secrets in it, and nothing else is asked of it.
Ends as the preview ends, or with 1 where a policy is violated. The file that PRICES names, else prices.json, says what
things cost.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from policy.rules import RULES, read_config, violations  # noqa: E402  (found by the line above)
from scripts.monthly_cost import Prices, monthly_cost, read_prices  # noqa: E402
from scripts.preview_changes import read_preview  # noqa: E402
from scripts.preview_report import Policies, comment, failure  # noqa: E402


def main() -> int:
    stack, *command = sys.argv[1:]
    try:
        prices = _prices()
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        print(failure(stack, str(error)), end="")
        return 1
    run = subprocess.run(command, capture_output=True, text=True)
    sys.stderr.write(run.stderr)
    try:
        preview = read_preview(run.stdout)
    except ValueError:
        # The engine did not get as far as the program.
        preview = None
    if preview is None or (run.returncode and not preview.error):
        print(failure(stack, run.stderr.strip()), end="")
        return run.returncode or 1
    policies = Policies(len(RULES), violations(preview.after, read_config(stack)))
    cost = monthly_cost(prices, preview.before, preview.after) if prices else None
    print(comment(stack, preview, policies, cost), end="")
    return run.returncode or (1 if policies.violations else 0)


def _prices() -> Prices | None:
    named = os.environ.get("PRICES")
    path = Path(named) if named else ROOT / "prices.json"
    if not named and not path.exists():
        return None
    try:
        return read_prices(path.read_text())
    except OSError as error:
        raise ValueError(f"PRICES={named}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError("\n".join(f"{path.name}: {line}" for line in str(error).splitlines())) from None


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FileNotFoundError as error:
        sys.exit(f"preview_comment.py needs {error.filename} on PATH.")
