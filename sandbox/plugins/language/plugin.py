"""A stand-in for `pulumi-language-python`, the official host of Python programs.

Runs the program in another process (`run_program.py`), with the interpreter of the virtual environment in Pulumi.yaml, or with
its own interpreter if Pulumi.yaml names none.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from google.protobuf import empty_pb2
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

from sandbox.plugins.server import Context, serve

# ruff: noqa: N802 - the protocol names the methods

RUN_PROGRAM = Path(__file__).with_name("run_program.py")
# The exit code of a program that has reported its error itself, as in the official host.
ALREADY_REPORTED = 32


# Seconds that an interrupted program has to end.
INTERRUPTION = 5


class PythonHost(language_pb2_grpc.LanguageRuntimeServicer):
    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.programs: set[asyncio.subprocess.Process] = set()

    async def Handshake(
        self, request: language_pb2.LanguageHandshakeRequest, context: Context
    ) -> language_pb2.LanguageHandshakeResponse:
        return language_pb2.LanguageHandshakeResponse()

    async def finish(self) -> None:
        """Ends the programs that still run."""
        await asyncio.gather(*map(interrupt, self.programs))

    async def GetPluginInfo(self, request: empty_pb2.Empty, context: Context) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=find_sdk_version())

    async def GetRequiredPackages(
        self, request: language_pb2.GetRequiredPackagesRequest, context: Context
    ) -> language_pb2.GetRequiredPackagesResponse:
        """Returns no packages, because the engine would try to download each."""
        return language_pb2.GetRequiredPackagesResponse()

    async def Run(self, request: language_pb2.RunRequest, context: Context) -> language_pb2.RunResponse:
        python, environment = find_interpreter(request.info)
        if not Path(python).exists() and (problem := await create_environment(request.info, python)):
            return language_pb2.RunResponse(error=problem)
        environment["PULUMI_CONFIG"] = json.dumps(dict(request.config))
        environment["PULUMI_CONFIG_SECRET_KEYS"] = json.dumps(list(request.configSecretKeys))
        settings = {
            "monitor": request.monitor_address,
            "engine": self.engine,
            "project": request.project,
            "stack": request.stack,
            "organization": request.organization,
            "parallel": request.parallel,
            "dry_run": request.dryRun,
        }
        program = Path(request.info.program_directory, request.info.entry_point or ".")
        process = await asyncio.create_subprocess_exec(
            python, "-u", str(RUN_PROGRAM), json.dumps(settings), str(program), *request.args,
            cwd=request.pwd, env=environment, stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        self.programs.add(process)
        try:
            code = await process.wait()
        except asyncio.CancelledError:  # the engine ended the call
            await interrupt(process)
            return language_pb2.RunResponse(bail=True)
        finally:
            self.programs.discard(process)
        if code == ALREADY_REPORTED:
            return language_pb2.RunResponse(bail=True)
        error = f"program exited with non-zero exit code: {code}" if code else ""
        return language_pb2.RunResponse(error=error)

    async def RunPlugin(
        self, request: language_pb2.RunPluginRequest, context: Context
    ) -> AsyncIterator[language_pb2.RunPluginResponse]:
        """Runs a program that serves the engine, such as a policy pack, until the engine ends the call.

        Hangs without a usable virtual environment, as the official host does. Callers must check it first.
        """
        python, environment = find_interpreter(request.info)
        if not await is_usable(python):
            await asyncio.Event().wait()
        environment |= dict(variable.split("=", 1) for variable in request.env)
        process = await asyncio.create_subprocess_exec(
            python, "-u", request.info.program_directory, *request.args, cwd=request.pwd, env=environment,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        responses: asyncio.Queue[language_pb2.RunPluginResponse] = asyncio.Queue()

        async def forward(
            stream: asyncio.StreamReader | None, response: Callable[[bytes], language_pb2.RunPluginResponse]
        ) -> None:
            while stream and (printed := await stream.read(1 << 16)):
                responses.put_nowait(response(printed))

        async def forward_all() -> None:
            await asyncio.gather(
                forward(process.stdout, lambda printed: language_pb2.RunPluginResponse(stdout=printed)),
                forward(process.stderr, lambda printed: language_pb2.RunPluginResponse(stderr=printed)),
            )
            responses.put_nowait(language_pb2.RunPluginResponse(exitcode=await process.wait()))

        forwarding = asyncio.create_task(forward_all())
        try:
            while (response := await responses.get()).WhichOneof("output") != "exitcode":
                yield response
            yield response
        finally:
            forwarding.cancel()
            if process.returncode is None:
                process.terminate()

    async def About(self, request: language_pb2.AboutRequest, context: Context) -> language_pb2.AboutResponse:
        return language_pb2.AboutResponse(executable=sys.executable, version=sys.version.split()[0])

    async def GetProgramDependencies(
        self, request: language_pb2.GetProgramDependenciesRequest, context: Context
    ) -> language_pb2.GetProgramDependenciesResponse:
        from importlib import metadata  # It loads slowly, and no update needs it.

        return language_pb2.GetProgramDependenciesResponse(
            dependencies=[
                language_pb2.DependencyInfo(name=package.name, version=package.version)
                for package in metadata.distributions()
            ]
        )

    async def RuntimeOptionsPrompts(
        self, request: language_pb2.RuntimeOptionsRequest, context: Context
    ) -> language_pb2.RuntimeOptionsResponse:
        return language_pb2.RuntimeOptionsResponse()

    async def Cancel(self, request: empty_pb2.Empty, context: Context) -> empty_pb2.Empty:
        return empty_pb2.Empty()


def find_sdk_version() -> str:
    """Returns the version in the name of the SDK's `dist-info` folder. importlib.metadata takes as long to load as gRPC."""
    (folder,) = Path(str(language_pb2.__file__)).parents[3].glob("pulumi-*.dist-info")
    return folder.name.removeprefix("pulumi-").removesuffix(".dist-info")


def find_interpreter(info: language_pb2.ProgramInfo) -> tuple[str, dict[str, str]]:
    """Returns the Python that runs the program, and its environment variables."""
    environment = dict(os.environ)
    option = info.options.fields.get("virtualenv")
    if option is None or not option.string_value:
        return sys.executable, environment
    folder = Path(info.root_directory, option.string_value)
    python = folder / "bin" / "python"
    environment["VIRTUAL_ENV"] = str(folder)
    environment["PATH"] = f"{folder / 'bin'}{os.pathsep}{environment.get('PATH', '')}"
    environment.pop("PYTHONHOME", None)
    return str(python), environment


async def create_environment(info: language_pb2.ProgramInfo, python: str) -> str:
    """Creates the virtual environment of a program and installs its requirements. Returns the error, or an empty text."""
    folder = Path(python).parents[1]
    commands = [[sys.executable, "-m", "venv", str(folder)]]
    requirements = Path(info.root_directory, "requirements.txt")
    if requirements.exists():
        commands.append([python, "-m", "pip", "install", "--quiet", "--requirement", str(requirements)])
    for command in commands:
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
        if await process.wait():
            return f"creating the virtual environment {folder}: {' '.join(command)} failed"
    return ""


async def is_usable(python: str) -> bool:
    """Returns whether the interpreter exists and finds the Pulumi SDK."""
    check = "import importlib.util, sys; sys.exit(importlib.util.find_spec('pulumi') is None)"
    if not Path(python).exists():
        return False
    process = await asyncio.create_subprocess_exec(python, "-c", check, stdin=asyncio.subprocess.DEVNULL)
    return await process.wait() == 0


async def interrupt(process: asyncio.subprocess.Process) -> None:
    """Interrupts the program, then kills it if it does not end. Without a signal handler it prints a traceback."""
    if process.returncode is None:
        process.send_signal(signal.SIGINT)
    try:
        await asyncio.wait_for(process.wait(), INTERRUPTION)
    except TimeoutError:
        process.kill()


def main() -> None:
    # The engine passes its address as the only argument of the plugin; it calls Handshake only when it attaches to one.
    engine = sys.argv[2] if len(sys.argv) > 2 else ""
    host = PythonHost(engine)
    serve(lambda server: language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server), host.finish)
