"""Runs one Pulumi program, in place of the official `pulumi-language-python-exec`.

Arguments: the run's settings as JSON, the program, and the arguments of the program.
"""

import asyncio
import json
import logging
import runpy
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pulumi
import pulumi.runtime

FAILED, ALREADY_REPORTED = 1, 32


def run(program: str, parallel: int) -> int:
    """Runs the program, waits for its resources and returns the exit code. Errors go to the engine's log."""
    # asyncio would log the unfinished tasks of a failed program.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    executor = ThreadPoolExecutor(max_workers=4 * max(parallel, 1))
    loop.set_default_executor(executor)

    def run_file() -> None:
        runpy.run_path(program, run_name="__main__")

    try:
        loop.run_until_complete(pulumi.runtime.run_in_stack(run_file))
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return FAILED
    except Exception as error:
        pulumi.log.error(
            f"Program failed with an unhandled exception:\n{format_program_traceback(error, program)}"
        )
        return ALREADY_REPORTED
    finally:
        executor.shutdown(wait=True)
        loop.close()
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def format_program_traceback(error: BaseException, program: str) -> str:
    """Returns the traceback from the program's first frame on, without the frames of this module and runpy."""
    folder = Path(program).resolve()
    frames = traceback.extract_tb(error.__traceback__)
    for index, frame in enumerate(frames):
        if Path(frame.filename).resolve() in (folder, folder / "__main__.py"):
            return "".join(traceback.format_exception(error, limit=index - len(frames)))
    return "".join(traceback.format_exception(error))


def main() -> None:
    settings, program, *arguments = sys.argv[1:]
    parsed = json.loads(settings)
    pulumi.runtime.set_all_config(
        pulumi.runtime.get_config_env(), pulumi.runtime.get_config_secret_keys_env()
    )
    pulumi.runtime.configure(pulumi.runtime.Settings(**parsed))
    sys.argv = [program, *arguments]
    sys.exit(run(program, parsed["parallel"]))


if __name__ == "__main__":
    main()
