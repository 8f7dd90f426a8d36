"""The settings of the server: red5.properties, of which the root REST API changes some."""

import logging

from .settings import HOME, read_properties, write_properties

FILE = HOME / "conf/red5.properties"
LEVELS = {"ALL": 1, "TRACE": 5, "DEBUG": 10, "INFO": 20, "WARN": 30, "ERROR": 40, "OFF": 100}
# Fields of the original's class ServerSettings, by their names in the file.
_TEXTS = {
    "logLevel": "logLevel",
    "nativeLogLevel": "nativeLogLevel",
    "nodeGroup": "nodeGroup",
    "server.allowed_dashboard_CIDR": "allowedDashboardCIDR",
    "server.jwtServerSecretKey": "jwtServerSecretKey",
    "server.licence_key": "licenceKey",
    "server.name": "serverName",
}
_BOOLEANS = {"server.jwtServerControlEnabled": "jwtServerControlEnabled", "useGlobalIp": "useGlobalIp"}
# What changeServerSettings takes over, by the field, with the value of a field that is missing.
_LIVE = {"serverName": "", "licenceKey": "", "nodeGroup": "default"}


class ServerSettings:
    """What the server runs with: the file as it was at the start, and what the API changed since."""

    def __init__(self) -> None:
        texts = read_properties(FILE)
        self.values: dict[str, object] = {
            **{field: texts.get(name, "") for name, field in _TEXTS.items()},
            **{field: texts.get(name) == "true" for name, field in _BOOLEANS.items()},
        }
        self._use_log_level()

    def replace(self, given: dict[str, object]) -> None:
        """Takes over the four fields that the original does, and writes them to the file. Missing ones get their default."""
        changed = {field: str(given.get(field) or default) for field, default in _LIVE.items()}
        # An unknown level is ignored.
        if given.get("logLevel") in LEVELS:
            changed["logLevel"] = str(given["logLevel"])
        self.values.update(changed)
        names = {field: name for name, field in _TEXTS.items()}
        write_properties(
            FILE, {**read_properties(FILE), **{names[field]: value for field, value in changed.items()}}
        )
        self._use_log_level()

    def _use_log_level(self) -> None:
        logging.getLogger().setLevel(LEVELS.get(str(self.values["logLevel"]), LEVELS["INFO"]))
