"""Corrects moto where it accepts what AWS refuses, or answers differently.

Each module corrects one part of the API. A correction's docstring says what AWS does, and where that is written: "EC2 API"
is the page of the action in the Amazon EC2 API Reference, "provider" is terraform-provider-aws, and an issue quotes AWS's answer.
"""

import importlib
import os

from sandbox.cloud import host

AMIS = host.SANDBOX / "images/amis.json"
MODULES = ("images", "instances", "addresses", "security_groups", "network", "iam", "route53", "quotas", "s3")


def apply() -> None:
    """Installs all corrections in this process, before the first request."""
    # moto reads this variable on import. Its default list has hundreds of images that cannot boot here.
    os.environ["MOTO_AMIS_PATH"] = str(AMIS)
    for module in MODULES:
        importlib.import_module(f"{__name__}.{module}")
