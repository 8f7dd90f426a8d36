"""What all commands of this package share: help texts and exit codes."""

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn


def new_parser(module: str, description: str, exit_codes: Mapping[int, str]) -> argparse.ArgumentParser:
    """Returns an argument parser whose help text ends with the exit codes."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog="\n".join(["exit codes:", *(f"  {code}  {meaning}" for code, meaning in exit_codes.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command and exits with its exit code, or with Pulumi's where Pulumi failed."""
    try:
        sys.exit(main())
    except FileNotFoundError as error:
        remedy = "" if "/" in str(error.filename) else ": install it, or add its folder to PATH"
        sys.exit(f"{error.filename} was not found{remedy}")
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except KeyboardInterrupt:
        sys.exit(130)
