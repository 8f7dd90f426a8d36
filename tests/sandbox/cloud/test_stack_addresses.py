"""The loopback addresses of test clusters."""

import os
import subprocess
import sys
from pathlib import Path

from sandbox.cloud import host

ASSIGN = """
from sandbox.cloud.relay import assign_address, read_stack_addresses
for stack, domain in (("pr-1", "one.test"), ("pr-2", "two.test"), ("pr-1", "other.test")):
    print(assign_address(stack, domain).address)
print(sorted((stack, own.address, own.domain) for stack, own in read_stack_addresses().items()))
"""


def test_each_stack_has_one_address_even_when_its_domain_changes(tmp_path: Path) -> None:
    output = subprocess.check_output(
        [sys.executable, "-c", ASSIGN],
        cwd=host.SANDBOX.parent,
        env={**os.environ, "SANDBOX_STATE": str(tmp_path), "SANDBOX_ADDRESS": "127.77.0.90"},
        text=True,
    )
    assert output.splitlines() == [
        "127.77.90.1",
        "127.77.90.2",
        "127.77.90.1",
        "[('pr-1', '127.77.90.1', 'other.test'), ('pr-2', '127.77.90.2', 'two.test')]",
    ]
