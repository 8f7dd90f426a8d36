"""A host that has no room for another machine says so when one is asked for, not by machines that die at boot."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

from sandbox.cloud import host
from sandbox.cloud.capacity import respond_limit_exceeded

COUNT = """
from sandbox.cloud.capacity import Capacity
capacity = Capacity()
print([capacity.reserve() for _ in range(3)])
"""


def test_room_is_counted_with_what_machines_that_boot_will_take() -> None:
    """In a user namespace, which has a limit of its own: enough for two machines."""
    limited = 'echo 12 >/proc/sys/user/max_inotify_instances && exec "$@"'
    run = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", limited, "sh", sys.executable, "-c", COUNT],
        cwd=host.SANDBOX.parent,
        capture_output=True,
        text=True,
    )
    assert (run.stdout, run.stderr) == ("[True, True, False]\n", "")


def test_who_asks_for_too_many_is_told_what_would_do() -> None:
    said: list[object] = []

    def start_response(
        status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        said.append(status)
        return said.append

    (answer,) = respond_limit_exceeded(start_response)
    assert said == ["400 Bad Request"]
    assert b"<Code>InstanceLimitExceeded</Code>" in answer
    assert b"sysctl -w fs.inotify.max_user_instances=1024" in answer
