"""ACME servers beside the sandbox's own."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from sandbox.cloud import acme, addresses
from tests.e2e.clients import Internet


@dataclass(frozen=True)
class AcmeServer:
    directory: str
    root: str
    """PEM of what its clients have to trust."""
    log: Path

    @property
    def orders(self) -> int:
        """How many certificates it was asked for."""
        return self.log.read_text().count("POST /order-plz")


@contextmanager
def another_acme_server(
    internet: Internet, port: int, validity: timedelta | None = None
) -> Generator[AcmeServer]:
    """On the sandbox's internet, with roots of its own."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "acme"
        process = internet.do(
            lambda: acme.start(folder, port=port, management_port=port + 1, validity=validity)
        )
        try:
            roots = internet.do(lambda: acme.fetch_roots(folder, management_port=port + 1))
            directory = f"https://{addresses.ACME_NAME}:{port}/dir"
            yield AcmeServer(directory, roots.decode(), folder / "pebble.log")
        finally:
            process.terminate()
            process.wait()
