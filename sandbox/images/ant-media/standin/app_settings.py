"""The settings of an application: read from its file, changed by the root REST API, shared through the registry."""

import json
import secrets
import time
from pathlib import Path

from .registry import Registry
from .settings import WEBAPPS, Networks, parse_networks, read_properties, write_properties

# The fields of the original's class AppSettings with their defaults.
_DEFAULTS: dict[str, object] = json.loads(Path(__file__).with_name("app_settings.json").read_text())
# Of each group the original allows one setting.
_PUBLISH_TOKENS = ("publishTokenControlEnabled", "publishJwtControlEnabled", "enableTimeTokenForPublish")
_PLAY_TOKENS = ("playTokenControlEnabled", "playJwtControlEnabled", "enableTimeTokenForPlay")


class AppSettings:
    """The settings that an application runs with. A change takes effect at once."""

    def __init__(self, application: str, registry: Registry, clustered: bool) -> None:
        self.application = application
        self._registry = registry
        self._clustered = clustered
        self._file = WEBAPPS / application / "WEB-INF/red5-web.properties"
        texts = read_properties(self._file)
        self.values = _fill(
            {name: _parse(texts[name], default) for name, default in _DEFAULTS.items() if name in texts},
            application,
        )

    @property
    def rest_networks(self) -> Networks:
        """Networks that may use the application's REST API."""
        return parse_networks(str(self.values["remoteAllowedCIDR"]))

    @property
    def plays_only_with_token(self) -> bool:
        return any(self.values[name] for name in (*_PLAY_TOKENS, "hashControlPlayEnabled"))

    async def follow_cluster(self, starting: bool = False) -> None:
        """Takes over the cluster's settings, or gives it these if it has none.

        A running server compares their times only. One that starts also writes its file, as the original's
        AntMediaApplicationAdapter.appStart does.
        """
        if not self._clustered:
            return
        stored = await self._registry.find_app_settings(self.application)
        if stored is None:
            # With the time of now: of two that start at once, one takes over the other's at its next heartbeat.
            stored = {**self.values, "updateTime": int(time.time() * 1000)}
            await self._registry.save_app_settings(self.application, stored)
        if starting or stored["updateTime"] != self.values["updateTime"]:
            self._apply(stored)

    async def replace(self, values: dict[str, object]) -> bool:
        """Replaces all settings. Those that are missing or null get their default, unknown ones are ignored."""
        new = _fill({name: value for name, value in values.items() if name in _DEFAULTS}, self.application)
        if any(sum(bool(new[name]) for name in group) > 1 for group in (_PUBLISH_TOKENS, _PLAY_TOKENS)):
            return False
        new["updateTime"] = int(time.time() * 1000)
        self._apply(new)
        if self._clustered:
            await self._registry.save_app_settings(self.application, new)
        return True

    def _apply(self, values: dict[str, object]) -> None:
        self.values = values
        texts = {name: _format(value) for name, value in values.items()}
        write_properties(self._file, {**read_properties(self._file), **texts})


def _fill(values: dict[str, object], application: str) -> dict[str, object]:
    given = {name: value for name, value in values.items() if value is not None}
    # The original draws these keys at random where they are missing.
    keys = {
        name: secrets.token_hex(16) for name in ("clusterCommunicationKey", "subscriberAuthenticationKey")
    }
    return {**_DEFAULTS, **keys, **given, "appName": application}


def _parse(text: str, default: object) -> object:
    if isinstance(default, bool):
        return text == "true"
    if isinstance(default, int | float):
        return type(default)(text)
    if isinstance(default, list | dict):
        return json.loads(text or "null") or default
    return text


def _format(value: object) -> str:
    if isinstance(value, bool | list | dict):
        return json.dumps(value)
    return "" if value is None else str(value)
