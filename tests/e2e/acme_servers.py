"""ACME servers on the sandbox's internet."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from sandbox.cloud import acme, addresses
from tests.e2e.clients import SandboxInternet
from tests.e2e.running_cluster import STATE


@dataclass(frozen=True)
class AcmeServer:
    directory: str
    """URL of its directory."""
    root: str
    """CA certificate of its HTTPS endpoint and of the certificates it issues, as PEM."""
    log: Path

    @property
    def orders(self) -> int:
        """Number of certificate orders since it started."""
        return self.log.read_text().count("POST /order-plz")


def sandbox_acme_server() -> AcmeServer:
    """Returns the ACME server of the sandbox, which the stack's settings name."""
    folder = STATE / "acme"
    return AcmeServer(
        f"https://{addresses.ACME_NAME}:{acme.PORT}/dir",
        (folder / "roots.pem").read_text(),
        folder / "pebble.log",
    )


@contextmanager
def extra_acme_server(
    internet: SandboxInternet, port: int, validity: timedelta | None = None
) -> Generator[AcmeServer]:
    """Runs another ACME server, with its own CA."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "acme"
        process = internet.call(
            lambda: acme.start(folder, port=port, management_port=port + 1, validity=validity)
        )
        try:
            roots = internet.call(lambda: acme.fetch_roots(folder, management_port=port + 1))
            directory = f"https://{addresses.ACME_NAME}:{port}/dir"
            yield AcmeServer(directory, roots.decode(), folder / "pebble.log")
        finally:
            process.terminate()
            process.wait()
