import pytest

from sandbox.cloud import images


@pytest.fixture(scope="session")
def layers() -> str:
    """The folders of a Debian 13 tree with HAProxy, as an overlay's `lowerdir`."""
    return ":".join(map(str, images.build("haproxy")))
