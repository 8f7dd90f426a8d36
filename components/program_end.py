"""How the program ends when it cannot go on."""

import signal
import sys
from typing import NoReturn

import pulumi

# The language host then reports no error of its own: pulumi/pulumi, sdk/python/cmd/pulumi-language-python-exec.
_ALREADY_REPORTED = 32


def refuse(message: str) -> NoReturn:
    """Reports an error and ends the program. An exception would add a second, meaningless error."""
    pulumi.log.error(message)
    sys.exit(_ALREADY_REPORTED)


def end_on_interrupt() -> None:
    """Ends the program without a traceback when the engine interrupts it, as it does after a failed resource."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
