#!/usr/bin/env -S python3 -B
"""Sets settings of applications through Ant Media Server's REST API, without a restart. In a cluster all nodes get them.

usage: set-app-settings.py PANEL_EMAIL SETTINGS < secrets
       SETTINGS is a JSON object: the values of each application, by name.
       Standard input has two lines: the panel's password, and the settings that are secret, as a second such object.

The API replaces all settings of an application. So this script reads them, changes the given ones and writes all back:
others keep what the panel set.
"""

from __future__ import annotations

import json
import sys
import urllib.error

from management_api import FAILURES, explain_refused_login, log_in, request


def change_settings(application: str, wanted: dict[str, object]) -> list[str]:
    """Sets the values and returns the names of those that had another value."""
    path = f"applications/settings/{application}"
    try:
        current = request(path)
    except urllib.error.HTTPError as error:
        sys.exit(
            f"Ant Media Server has no application {application} (status {error.code}): create it in the web panel, "
            "or remove it from applicationSettings."
        )
    changed = find_differences(wanted, current)
    if changed:
        if not request(path, {**current, **wanted})["success"]:
            sys.exit(
                f"Ant Media Server refused the settings of {application} ({', '.join(changed)}). "
                "It allows one kind of token control for publishing and one for playing."
            )
        # The API ignores names that it does not know.
        ignored = find_differences(wanted, request(path))
        if ignored:
            sys.exit(
                f"This version of Ant Media Server ignores the settings {', '.join(ignored)}: remove them."
            )
    return changed


def find_differences(wanted: dict[str, object], current: dict[str, object]) -> list[str]:
    """Returns the names of the wanted settings that have another value."""
    return sorted(name for name, value in wanted.items() if current.get(name) != value)


def main() -> None:
    email, settings = sys.argv[1], json.loads(sys.argv[2])
    accepted = log_in(email)
    secrets = json.loads(sys.stdin.readline())
    if not accepted:
        sys.exit(explain_refused_login(email, "applicationSettings"))
    for application, values in settings.items():
        changed = change_settings(application, {**values, **secrets[application]})
        print(f"{application}: {'changed ' + ', '.join(changed) if changed else 'unchanged'}")


try:
    main()
except FAILURES as error:
    sys.exit(f"Ant Media Server's REST API failed: {error}. The next update sets applicationSettings again.")
