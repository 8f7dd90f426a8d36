"""Corrects moto where it accepts what AWS refuses, or answers differently.

Each module corrects one part of the API. A correction's docstring says what AWS does, and where that is written: "EC2 API"
is the page of the action in the Amazon EC2 API Reference, "provider" is terraform-provider-aws, and an issue quotes AWS's answer.
"""

import functools
import importlib
import os
from typing import Any

from sandbox.cloud import addresses, host

AMIS = host.SANDBOX / "images/amis.json"
MODULES = (
    "images",
    "volumes",
    "instances",
    "addresses",
    "security_groups",
    "network",
    "iam",
    "route53",
    "quotas",
    "s3",
)


def apply() -> None:
    """Installs all corrections in this process, before the first request."""
    # moto reads this variable on import. Its default list has hundreds of images that cannot boot here.
    os.environ["MOTO_AMIS_PATH"] = str(AMIS)
    _load_offerings_of_one_region()
    for module in MODULES:
        importlib.import_module(f"{__name__}.{module}")
    _keep_names()


def _load_offerings_of_one_region() -> None:
    """Makes moto load the offered instance types of this cloud's region only. All regions have 150,000 entries."""
    from moto.utilities import utils

    load = utils.load_resource

    def load_resource(resource: str) -> Any:
        of_region = addresses.REGION in resource or "instance_type_offerings" not in resource
        return load(resource) if of_region else []

    utils.load_resource = load_resource


def _keep_names() -> None:
    """Makes moto find the names of its services and of a service's operations once, instead of in each request."""
    from moto import backends
    from moto.core import responses

    services = frozenset(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: services
    find_methods = responses.method_names_from_class  # pyright: ignore[reportPrivateImportUsage]
    responses.method_names_from_class = functools.cache(find_methods)  # pyright: ignore[reportPrivateImportUsage]
