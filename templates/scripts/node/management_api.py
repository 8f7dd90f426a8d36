"""Sends requests to Ant Media Server's management REST API on this machine, for the other scripts."""

from __future__ import annotations

import hashlib
import http.client
import http.cookiejar
import json
import sys
import urllib.request
from typing import Any

API = "http://127.0.0.1:5080/rest/v2"
TIMEOUT = 30
FAILURES = (OSError, http.client.HTTPException, json.JSONDecodeError)
"""What a request raises if the server does not answer, or not as expected."""

_client = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))


def request(path: str, body: object = None) -> Any:
    """Returns the JSON of a response. Sends a POST request with `body`, or a GET request without it."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    with _client.open(urllib.request.Request(f"{API}/{path}", data, headers), timeout=TIMEOUT) as response:
        return json.load(response)


def log_in(email: str) -> bool:
    """Logs in as a user of the web panel with the password on standard input, and returns whether the server accepts it."""
    user = {"email": email}
    # The panel sends the MD5 of a password.
    user["password"] = hashlib.md5(sys.stdin.readline().rstrip("\n").encode()).hexdigest()
    return bool(request("users/authenticate", user)["success"])


def explain_refused_login(email: str, names: str) -> str:
    """Returns why the settings with these names were not set, and the remedy."""
    return (
        f"{email} cannot log in to the web panel with panelPassword, which is needed to set {names}. "
        "Set panelEmail and panelPassword to a user of the panel: it keeps its first user when they, or the domain in the default "
        "panelEmail, change. After some failed logins Ant Media Server refuses all for five minutes."
    )
