#!/usr/bin/env -S python3 -B
"""Prints the load of this node as Ant Media Server measures it, the limits above which it refuses publishers, and its applications.

usage: show-server.py PANEL_EMAIL < password
       Prints a JSON object for operations/status/servers.py. Exits with 3 if the server refuses the login.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from management_api import FAILURES, log_in, request

PROPERTIES = Path("/usr/local/antmedia/conf/red5.properties")
DEFAULT_LIMIT = 75
LOGIN_REFUSED = 3


def read_limit(name: str) -> int:
    """Returns a limit as the server uses it: 10 to 100."""
    prefix = f"{name}="
    values = [line[len(prefix) :] for line in PROPERTIES.read_text().splitlines() if line.startswith(prefix)]
    return min(max(int(values[-1]), 10), 100) if values else DEFAULT_LIMIT


def main() -> None:
    if not log_in(sys.argv[1]):
        print(f"{sys.argv[1]} cannot log in to the web panel with panelPassword", file=sys.stderr)
        sys.exit(LOGIN_REFUSED)
    memory = request("system-memory-status")
    used = memory["totalMemory"] - memory["availableMemory"]
    found = {
        "cpu_load": request("cpu-status")["systemCPULoad"],
        "cpu_limit": read_limit("server.cpu_limit"),
        # As StatsCollector.getMemoryLoad.
        "memory_load": int(used / memory["totalMemory"] * 100),
        "memory_limit": read_limit("server.memory_limit_percentage"),
        "applications": request("applications")["applications"],
    }
    print(json.dumps(found))


try:
    main()
except FAILURES as error:
    sys.exit(f"Ant Media Server's REST API failed: {error}")
