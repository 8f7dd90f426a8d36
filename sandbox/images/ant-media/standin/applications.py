"""The applications of the server: those of its folder, and those that the root REST API creates while it runs."""

from .app_settings import AppSettings
from .application import Application
from .media import MediaServer
from .registry import Registry
from .settings import WEBAPPS, Settings

# Has the properties of a new application: no application changes them, and change_server_mode.sh keeps the database there too.
_TEMPLATE = WEBAPPS / "root/WEB-INF/red5-web.properties"


class Applications:
    """The applications by name, and their settings."""

    def __init__(
        self, settings: Settings, app_settings: dict[str, AppSettings], registry: Registry, media: MediaServer
    ) -> None:
        """`app_settings` is filled with the settings of the applications."""
        self._settings = settings
        self._registry = registry
        self._media = media
        self.settings = app_settings
        self.running: dict[str, Application] = {}
        for name in settings.applications:
            self._add(name)

    def _add(self, name: str) -> None:
        self.settings[name] = AppSettings(name, self._registry, self._settings.database is not None)
        self.running[name] = Application(self._settings, self.settings[name], self._registry, self._media)

    async def create(self, name: str) -> bool:
        """Creates an application, which runs at once. False if there is one of this name."""
        if name in self.running:
            return False
        file = WEBAPPS / name / "WEB-INF/red5-web.properties"
        file.parent.mkdir(parents=True)
        file.write_bytes(_TEMPLATE.read_bytes())
        self._add(name)
        await self.settings[name].follow_cluster(starting=True)
        await self._media.add(name)
        return True

    async def follow_cluster(self, starting: bool = False) -> None:
        """Creates what other nodes have created, and takes over the cluster's settings."""
        if self._settings.database:
            for name in await self._registry.list_applications():
                await self.create(name)
            for each in list(self.settings.values()):
                await each.follow_cluster(starting)
