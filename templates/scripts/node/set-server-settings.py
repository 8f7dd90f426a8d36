#!/usr/bin/env -S python3 -B
"""Sets settings of Ant Media Server on this node. SETTINGS is a JSON object of values by their name in conf/red5.properties.

usage: set-server-settings.py at-start SETTINGS < secrets
           Writes conf/red5.properties, which the server reads when it starts, and prints a regular expression of their names.
           Standard input has the settings that are secret, as a second such object, or is empty.
       set-server-settings.py live PANEL_EMAIL SETTINGS < password
           Sets logLevel and server.name of the running server by its REST API, which writes the file too.
           Standard input has the panel's password. It logs in only if a value differs.

A setting that is not listed any more gets the value that it had before this script first set it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

from management_api import FAILURES, explain_refused_login, log_in, request

PROPERTIES = Path("/usr/local/antmedia/conf/red5.properties")
FORMER = Path("/var/lib/ant-media-cluster/former-server-settings")
"""JSON of the values before this script set them, by name; null for a setting that was not in the file."""

LIVE_FIELDS = {"logLevel": "logLevel", "server.name": "serverName"}
"""What the REST API takes over, with the API's names."""
OTHER_FIELDS = ("licenceKey", "nodeGroup")
"""What the API replaces too. It ignores every other field."""

Values = dict[str, "str | None"]


def read_properties() -> Values:
    """Returns the values as Java's Properties.load does."""
    pairs = (line.partition("=") for line in PROPERTIES.read_text().splitlines() if line[:1] not in ("#", ""))
    return {name.strip(): re.sub(r"\\(.)", r"\1", value.strip()) for name, _, value in pairs}


def write_properties(values: Values, readable_by_all: bool) -> None:
    """Writes values over those in the file; None removes one. Other lines stay."""
    lines: list[str] = []
    remaining = dict(values)
    for line in PROPERTIES.read_text().splitlines():
        name = line.partition("=")[0].strip()
        if name not in values:
            lines.append(line)
        elif name in remaining:
            lines += format_line(name, remaining.pop(name))
    for name, value in remaining.items():
        lines += format_line(name, value)
    owner = PROPERTIES.stat()
    new = PROPERTIES.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text("\n".join(lines) + "\n")
    os.chown(new, owner.st_uid, owner.st_gid)
    new.chmod(owner.st_mode & (0o777 if readable_by_all else 0o770))
    new.replace(PROPERTIES)


def format_line(name: str, value: str | None) -> list[str]:
    return [] if value is None else ["{}={}".format(name, value.replace("\\", "\\\\"))]


def read_former() -> Values:
    return json.loads(FORMER.read_text()) if FORMER.exists() else {}


def write_former(former: Values) -> None:
    FORMER.parent.mkdir(parents=True, exist_ok=True)
    new = FORMER.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(json.dumps(former))
    new.replace(FORMER)


def format_value(value: object) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def choose_values(wanted: dict[str, object], current: Values, live: bool) -> tuple[Values, Values]:
    """Returns the former values, and the values to set: the wanted ones, and the former ones of settings that are not wanted any more."""
    former = {**{name: current.get(name) for name in wanted}, **read_former()}
    restored = {name: value for name, value in former.items() if (name in LIVE_FIELDS) == live}
    return former, {**restored, **{name: format_value(value) for name, value in wanted.items()}}


def forget(names: set[str]) -> None:
    write_former({name: value for name, value in read_former().items() if name not in names})


def set_at_start(settings: dict[str, object], hidden: dict[str, object]) -> None:
    wanted = {**settings, **hidden}
    current = read_properties()
    former, values = choose_values(wanted, current, live=False)
    if values:
        # Before the file: an interrupted run must not take a value of its own for a former one.
        write_former(former)
        if any(current.get(name) != value for name, value in values.items()):
            write_properties(values, readable_by_all=not hidden)
        forget(values.keys() - wanted.keys())
    print("|".join(re.escape(name) for name in sorted(wanted)))


def set_live(email: str, wanted: dict[str, object]) -> None:
    current = read_properties()
    former, chosen = choose_values(wanted, current, live=True)
    values = {name: value or "" for name, value in chosen.items()}
    if not values:
        return
    write_former(former)
    # The server writes what it takes over to the file at once.
    changed = sorted(name for name, value in values.items() if (current.get(name) or "") != value)
    if changed:
        if not log_in(email):
            sys.exit(explain_refused_login(email, " and ".join(changed)))
        now = request("server-settings")
        fields = {field: now.get(field) for field in (*LIVE_FIELDS.values(), *OTHER_FIELDS)}
        if not request("server-settings", {**fields, **{LIVE_FIELDS[name]: values[name] for name in values}})[
            "success"
        ]:
            sys.exit(
                f"Ant Media Server could not write {PROPERTIES}, so {' and '.join(changed)} last until it restarts."
            )
        print(f"Changed {', '.join(changed)} without a restart")
    forget(values.keys() - wanted.keys())


def main() -> None:
    command, *arguments, settings = sys.argv[1:]
    if command == "live":
        set_live(arguments[0], json.loads(settings))
    else:
        set_at_start(json.loads(settings), json.loads(sys.stdin.read().strip() or "{}"))


try:
    main()
except FAILURES as error:
    sys.exit(f"The settings of Ant Media Server could not be set: {error}. The next update sets them again.")
