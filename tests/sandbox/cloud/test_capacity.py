"""The number of machines that one host can run."""

import subprocess
import sys

from sandbox.cloud import host
from sandbox.cloud.capacity import describe_limit
from sandbox.cloud.moto_corrections.errors import ApiCall, render_error

COUNT = """
from sandbox.cloud.capacity import Capacity
capacity = Capacity()
print([capacity.reserve() for _ in range(3)])
"""


def test_booting_machines_count_against_the_limit() -> None:
    """Runs in a user namespace, whose limit is set to two machines."""
    limited = 'echo 12 >/proc/sys/user/max_inotify_instances && exec "$@"'
    run = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", limited, "sh", sys.executable, "-c", COUNT],
        cwd=host.SANDBOX.parent,
        capture_output=True,
        text=True,
    )
    assert (run.stdout, run.stderr) == ("[True, True, False]\n", "")


def test_exceeded_limit_reports_the_sysctl_to_raise() -> None:
    call = ApiCall("ec2", "RunInstances", sends_json=False)
    kind, answer = render_error(call, "InstanceLimitExceeded", describe_limit())
    assert kind == "text/xml"
    assert b"<Code>InstanceLimitExceeded</Code>" in answer
    assert b"sysctl -w fs.inotify.max_user_instances=1024" in answer
