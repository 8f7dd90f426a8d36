"""Print what a preview would change as Markdown, for a comment on a pull request. Ends as the preview ends.

usage: preview_comment.py STACK COMMAND...

COMMAND is one that previews with --json: the engine blinds secrets in it, and nothing else is asked of it.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.preview_changes import read_preview  # noqa: E402  (found by the line above)
from scripts.preview_report import comment, failure  # noqa: E402


def main() -> int:
    stack, *command = sys.argv[1:]
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
    print(comment(stack, preview), end="")
    return run.returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FileNotFoundError as error:
        sys.exit(f"preview_comment.py needs {error.filename} on PATH.")
