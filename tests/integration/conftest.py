import pytest

from sandbox.cloud import images


@pytest.fixture(scope="session")
def layers() -> str:
    """Returns the folders of a Debian 13 tree with HAProxy, for an overlay's `lowerdir`."""
    return ":".join(map(str, images.build("haproxy")))
