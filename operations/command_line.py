"""What all commands of this package share: help texts and exit codes."""

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

from operations.aws_failures import explain_aws_error, find_aws_failure, is_aws_error
from operations.table import format_table

PULUMI_FAILED = {"other": "Pulumi failed; this is its exit code"}


def new_parser(
    module: str, description: str, exit_codes: Mapping[int, str] | Mapping[int | str, str]
) -> argparse.ArgumentParser:
    """Returns an argument parser whose help text ends with the exit codes."""
    rows = [(str(code), meaning) for code, meaning in exit_codes.items()]
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=f"exit codes:\n{format_table(rows, indent='  ')}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command and exits with its exit code, or with Pulumi's where Pulumi failed. Explains failures of AWS."""
    try:
        sys.exit(main())
    except FileNotFoundError as error:
        remedy = "" if "/" in str(error.filename) else ": install it, or add its folder to PATH"
        sys.exit(f"{error.filename} was not found{remedy}")
    except subprocess.CalledProcessError as error:
        if failure := find_aws_failure(str(error.stderr or "")):
            print(failure, file=sys.stderr)
        sys.exit(error.returncode)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if is_aws_error(error):
            sys.exit(explain_aws_error(error))
        raise
