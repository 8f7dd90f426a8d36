"""Pulumi's resource provider protocol, spoken for a table of resource kinds and functions.

A provider is that table; what a kind does with a real resource stands in the kind. Secrets need no care here:
the engine hands them over in clear and marks again what comes back under the same name.
"""

import asyncio
from collections.abc import Awaitable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import grpc
from google.protobuf import any_pb2, empty_pb2
from google.rpc import status_pb2
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, plugin_pb2, provider_pb2, provider_pb2_grpc

from sandbox.plugins.properties import Properties, Value, differences, from_struct, to_struct
from sandbox.plugins.server import CHANNEL_OPTIONS, Context, serve

# ruff: noqa: N802 - the protocol's method names are not ours

T = TypeVar("T")
Failures = dict[str, str]
"""What is wrong with which input."""


class ProviderError(Exception):
    """Something went wrong in a way that the user is told about, word by word."""


class NotReadyError(ProviderError):
    """The resource exists, but never got into the state that it should be in."""

    def __init__(self, message: str, resource_id: str, state: Properties) -> None:
        super().__init__(message)
        self.resource_id = resource_id
        self.state = state


@dataclass(frozen=True)
class Diff:
    """What a change of inputs means: the paths that differ, and which of them take a new resource."""

    paths: Mapping[str, tuple[Value, Value]] = field(default_factory=dict)
    replaces: frozenset[str] = frozenset()
    delete_before_replace: bool = False


class Resource(Protocol):
    """One kind of resource. `inputs` have passed `check`; `state` is what `create` or `read` returned."""

    def check(
        self, name: str, old: Properties, inputs: Properties, seed: bytes
    ) -> tuple[Properties, Failures]:
        """Whatever is drawn by lot comes from the seed: a plan holds it, and so the update draws the same."""
        ...

    def diff(self, old_inputs: Properties, state: Properties, inputs: Properties) -> Diff: ...

    def plan(self, state: Properties, old_inputs: Properties, inputs: Properties) -> Properties:
        """The outputs as far as a preview can know them; `state` and `old_inputs` are empty for a new one."""
        ...

    async def create(self, run: "Run", inputs: Properties) -> tuple[str, Properties]: ...

    async def read(self, run: "Run", resource_id: str, state: Properties) -> Properties | None:
        """The resource as it is now, None when it is gone."""
        ...

    def inputs_of(self, inputs: Properties, state: Properties) -> Properties:
        """The inputs that would lead to the state read; `inputs` are those last applied, if any."""
        ...

    async def update(
        self, run: "Run", resource_id: str, state: Properties, old_inputs: Properties, inputs: Properties
    ) -> Properties: ...

    async def delete(self, run: "Run", resource_id: str, state: Properties) -> None: ...


@dataclass(frozen=True)
class Run:
    """One operation on one resource, and its lines in the engine's log."""

    urn: str
    engine: engine_pb2_grpc.EngineStub | None

    @property
    def name(self) -> str:
        return self.urn.rsplit("::", 1)[-1]

    async def status(self, message: str) -> None:
        """Shows a line beside the resource while the operation goes on."""
        await self._log(engine_pb2.INFO, message, ephemeral=True)

    async def warn(self, message: str) -> None:
        await self._log(engine_pb2.WARNING, message)

    async def error(self, message: str) -> None:
        await self._log(engine_pb2.ERROR, message)

    async def _log(
        self, severity: engine_pb2.LogSeverity.ValueType, message: str, ephemeral: bool = False
    ) -> None:
        if self.engine is not None:
            request = engine_pb2.LogRequest(
                severity=severity, message=message, urn=self.urn, ephemeral=ephemeral
            )
            await cast(Awaitable[object], self.engine.Log(request))


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """Serves `kinds` (by type token); subclasses add configuration and functions."""

    name: str
    version: str
    kinds: Mapping[str, Resource]

    def __init__(self) -> None:
        self.engine: engine_pb2_grpc.EngineStub | None = None
        self.running: set[asyncio.Task[Any]] = set()

    def check_config(self, inputs: Properties) -> Failures:
        return {}

    def configure(self, inputs: Properties) -> None:
        """Takes the provider's own inputs."""

    async def invoke(self, token: str, arguments: Properties) -> Properties:
        raise ProviderError(f"unknown function {token}: the sandbox's {self.name} provider does not have it")

    # ---- the protocol

    async def Handshake(
        self, request: provider_pb2.ProviderHandshakeRequest, context: Context
    ) -> provider_pb2.ProviderHandshakeResponse:
        channel = grpc.aio.insecure_channel(request.engine_address, options=CHANNEL_OPTIONS)
        self.engine = engine_pb2_grpc.EngineStub(channel)
        return provider_pb2.ProviderHandshakeResponse()

    async def GetPluginInfo(self, request: empty_pb2.Empty, context: Context) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=self.version)

    async def CheckConfig(
        self, request: provider_pb2.CheckRequest, context: Context
    ) -> provider_pb2.CheckResponse:
        failures = self.check_config(from_struct(request.news))
        return provider_pb2.CheckResponse(inputs=request.news, failures=_failures(failures))

    async def DiffConfig(
        self, request: provider_pb2.DiffRequest, context: Context
    ) -> provider_pb2.DiffResponse:
        return _diff_response(Diff(_changes(from_struct(request.old_inputs), from_struct(request.news))))

    async def Configure(
        self, request: provider_pb2.ConfigureRequest, context: Context
    ) -> provider_pb2.ConfigureResponse:
        async def work() -> provider_pb2.ConfigureResponse:
            self.configure(from_struct(request.args))
            return provider_pb2.ConfigureResponse(supportsPreview=True)

        return await self._answer(context, work())

    async def Check(self, request: provider_pb2.CheckRequest, context: Context) -> provider_pb2.CheckResponse:
        async def work() -> provider_pb2.CheckResponse:
            run, kind = self._resource(request.urn)
            olds, news = from_struct(request.olds), from_struct(request.news)
            news, failures = kind.check(run.name, olds, news, request.randomSeed)
            return provider_pb2.CheckResponse(inputs=to_struct(news), failures=_failures(failures))

        return await self._answer(context, work())

    async def Diff(self, request: provider_pb2.DiffRequest, context: Context) -> provider_pb2.DiffResponse:
        async def work() -> provider_pb2.DiffResponse:
            _, kind = self._resource(request.urn)
            old_inputs, state = from_struct(request.old_inputs), from_struct(request.olds)
            return _diff_response(kind.diff(old_inputs, state, from_struct(request.news)))

        return await self._answer(context, work())

    async def Create(
        self, request: provider_pb2.CreateRequest, context: Context
    ) -> provider_pb2.CreateResponse:
        async def work() -> provider_pb2.CreateResponse:
            run, kind = self._resource(request.urn)
            inputs = from_struct(request.properties)
            if request.preview:
                return provider_pb2.CreateResponse(properties=to_struct(kind.plan({}, {}, inputs)))
            resource_id, state = await kind.create(run, inputs)
            return provider_pb2.CreateResponse(id=resource_id, properties=to_struct(state))

        return await self._answer(context, work())

    async def Read(self, request: provider_pb2.ReadRequest, context: Context) -> provider_pb2.ReadResponse:
        async def work() -> provider_pb2.ReadResponse:
            run, kind = self._resource(request.urn)
            state = await kind.read(run, request.id, from_struct(request.properties))
            if state is None:
                return provider_pb2.ReadResponse()
            inputs = kind.inputs_of(from_struct(request.inputs), state)
            return provider_pb2.ReadResponse(
                id=request.id, properties=to_struct(state), inputs=to_struct(inputs)
            )

        return await self._answer(context, work())

    async def Update(
        self, request: provider_pb2.UpdateRequest, context: Context
    ) -> provider_pb2.UpdateResponse:
        async def work() -> provider_pb2.UpdateResponse:
            run, kind = self._resource(request.urn)
            old_inputs, state = from_struct(request.old_inputs), from_struct(request.olds)
            inputs = from_struct(request.news)
            if request.preview:
                new_state = kind.plan(state, old_inputs, inputs)
            else:
                new_state = await kind.update(run, request.id, state, old_inputs, inputs)
            return provider_pb2.UpdateResponse(properties=to_struct(new_state))

        return await self._answer(context, work())

    async def Delete(self, request: provider_pb2.DeleteRequest, context: Context) -> empty_pb2.Empty:
        async def work() -> empty_pb2.Empty:
            run, kind = self._resource(request.urn)
            await kind.delete(run, request.id, from_struct(request.properties))
            return empty_pb2.Empty()

        return await self._answer(context, work())

    async def Invoke(
        self, request: provider_pb2.InvokeRequest, context: Context
    ) -> provider_pb2.InvokeResponse:
        async def work() -> provider_pb2.InvokeResponse:
            answer = await self.invoke(request.tok, from_struct(request.args))
            return provider_pb2.InvokeResponse(**{"return": to_struct(answer)})  # pyright: ignore[reportArgumentType]

        return await self._answer(context, work())

    async def Cancel(self, request: empty_pb2.Empty, context: Context) -> empty_pb2.Empty:
        for task in self.running:
            task.cancel()
        return empty_pb2.Empty()

    # ---- below

    def _resource(self, urn: str) -> tuple[Run, Resource]:
        token = urn.split("::")[2].rsplit("$", 1)[-1]
        if token not in self.kinds:
            raise ProviderError(
                f"unknown resource type {token}: the sandbox's {self.name} provider does not have it"
            )
        return Run(urn, self.engine), self.kinds[token]

    async def _answer(self, context: Context, work: Coroutine[Any, Any, T]) -> T:
        """Does the work so that Cancel reaches it and what goes wrong becomes the error the user reads."""
        task = asyncio.ensure_future(work)
        self.running.add(task)
        try:
            return await task
        except NotReadyError as problem:
            await _abort_partially(context, problem)
        except ProviderError as problem:
            await context.abort(grpc.StatusCode.UNKNOWN, str(problem))
        except asyncio.CancelledError:
            task.cancel()
            await context.abort(grpc.StatusCode.CANCELLED, "context canceled")
        finally:
            self.running.discard(task)
        raise AssertionError("abort always raises")

    @classmethod
    def main(cls) -> None:
        serve(lambda server: provider_pb2_grpc.add_ResourceProviderServicer_to_server(cls(), server))


async def _abort_partially(context: Context, problem: NotReadyError) -> None:
    """Ends the call with an error that still hands the resource over, so that it is not forgotten."""
    detail = any_pb2.Any()
    detail.Pack(
        provider_pb2.ErrorResourceInitFailed(
            id=problem.resource_id, properties=to_struct(problem.state), reasons=[str(problem)]
        )
    )
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(problem), details=[detail])
    await context.abort(
        grpc.StatusCode.UNKNOWN,
        str(problem),
        trailing_metadata=(("grpc-status-details-bin", status.SerializeToString()),),
    )


def _changes(old: Properties, new: Properties) -> dict[str, tuple[Value, Value]]:
    return {path: (before, after) for path, before, after in differences("", old, new)}


def _failures(failures: Failures) -> list[provider_pb2.CheckFailure]:
    return [
        provider_pb2.CheckFailure(property=property_, reason=reason) for property_, reason in failures.items()
    ]


def _diff_response(diff: Diff) -> provider_pb2.DiffResponse:
    if not diff.paths:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)
    kinds = provider_pb2.PropertyDiff
    detailed = {}
    for path, (before, after) in diff.paths.items():
        replace = bool({path, top_level(path)} & diff.replaces)
        if before is None:
            kind = kinds.ADD_REPLACE if replace else kinds.ADD
        elif after is None:
            kind = kinds.DELETE_REPLACE if replace else kinds.DELETE
        else:
            kind = kinds.UPDATE_REPLACE if replace else kinds.UPDATE
        detailed[path] = kinds(kind=kind, inputDiff=True)
    return provider_pb2.DiffResponse(
        changes=provider_pb2.DiffResponse.DIFF_SOME,
        diffs=sorted({top_level(path) for path in diff.paths}),
        replaces=sorted(diff.replaces),
        deleteBeforeReplace=diff.delete_before_replace,
        detailedDiff=detailed,
        hasDetailedDiff=True,
    )


def top_level(path: str) -> str:
    return path.split(".", 1)[0].split("[", 1)[0]
