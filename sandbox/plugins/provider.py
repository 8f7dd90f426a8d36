"""Serves Pulumi's resource provider protocol for a table of resource types.

The engine sends secrets in plain text and marks the returned properties of the same names as secret again. A provider that accepts
secrets gets and returns them marked, nested ones too.
"""

import asyncio
from collections.abc import Awaitable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import grpc
from google.protobuf import any_pb2, empty_pb2, struct_pb2
from google.rpc import status_pb2
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, plugin_pb2, provider_pb2, provider_pb2_grpc

from sandbox.plugins.properties import (
    Path,
    Properties,
    Value,
    find_differences,
    find_secrets,
    from_struct,
    mark_secrets,
    to_struct,
)
from sandbox.plugins.server import CHANNEL_OPTIONS, Context, serve

# ruff: noqa: N802 - the protocol names the methods

T = TypeVar("T")
Failures = dict[str, str]
"""The reason for each rejected input."""


class ProviderError(Exception):
    """An error whose text Pulumi shows to the user."""


class ResourceInitFailedError(ProviderError):
    """The resource was created, but did not become ready. Pulumi keeps it in the state."""

    def __init__(self, message: str, resource_id: str, state: Properties) -> None:
        super().__init__(message)
        self.resource_id = resource_id
        self.state = state


@dataclass(frozen=True)
class Diff:
    """The changed property paths with old and new values, and the paths that require a replacement."""

    paths: Mapping[str, tuple[Value, Value]] = field(default_factory=dict)
    replaces: frozenset[str] = frozenset()
    delete_before_replace: bool = False


class ResourceType(Protocol):
    """The operations of one resource type. `inputs` come from `check`, `state` from `create`, `read` or `update`."""

    def check(
        self, name: str, old: Properties, inputs: Properties, seed: bytes
    ) -> tuple[Properties, Failures]:
        """Returns the completed inputs and the rejected ones.

        Random names derive from the seed. A plan stores the seed, so the update gets the names of its preview.
        """
        ...

    def diff(self, old_inputs: Properties, state: Properties, inputs: Properties) -> Diff: ...

    def preview_outputs(self, state: Properties, old_inputs: Properties, inputs: Properties) -> Properties:
        """Returns the outputs that a preview knows. `state` and `old_inputs` are empty for a new resource."""
        ...

    async def create(self, operation: "Operation", inputs: Properties) -> tuple[str, Properties]: ...

    async def read(self, operation: "Operation", resource_id: str, state: Properties) -> Properties | None:
        """Returns the current state, or None if the resource does not exist."""
        ...

    def inputs_from_state(self, inputs: Properties, state: Properties) -> Properties:
        """Returns the inputs that lead to `state`. `inputs` are those of the last update, or empty for an import."""
        ...

    async def update(
        self,
        operation: "Operation",
        resource_id: str,
        state: Properties,
        old_inputs: Properties,
        inputs: Properties,
    ) -> Properties: ...

    async def delete(self, operation: "Operation", resource_id: str, state: Properties) -> None: ...


@dataclass(frozen=True)
class Operation:
    """One operation on one resource, and its messages in the engine's log."""

    urn: str
    engine: engine_pb2_grpc.EngineStub | None

    @property
    def name(self) -> str:
        return self.urn.rsplit("::", 1)[-1]

    async def status(self, message: str) -> None:
        """Shows a line beside the resource during the operation."""
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
    """Serves `resource_types`, by type token. Subclasses add configuration and functions."""

    name: str
    version: str
    resource_types: Mapping[str, ResourceType]
    accepts_secrets = False
    secret_properties: frozenset[Path] = frozenset()
    """Properties that are always secret, if the provider accepts secrets."""

    def __init__(self) -> None:
        self.engine: engine_pb2_grpc.EngineStub | None = None
        self.running: set[asyncio.Task[Any]] = set()

    def check_config(self, inputs: Properties) -> Failures:
        return {}

    def configure(self, inputs: Properties) -> None:
        """Stores the provider's configuration."""

    async def invoke(self, token: str, arguments: Properties) -> Properties:
        raise ProviderError(
            f"unknown function {token}: the sandbox's {self.name} provider does not support it"
        )

    # ---- methods of the protocol

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
            return provider_pb2.ConfigureResponse(supportsPreview=True, acceptSecrets=self.accepts_secrets)

        return await self._run_request(context, work())

    async def Check(self, request: provider_pb2.CheckRequest, context: Context) -> provider_pb2.CheckResponse:
        async def work() -> provider_pb2.CheckResponse:
            operation, resource_type = self._resource(request.urn)
            olds, news = from_struct(request.olds), from_struct(request.news)
            news, failures = resource_type.check(operation.name, olds, news, request.randomSeed)
            inputs = self._to_struct(news, request.news)
            return provider_pb2.CheckResponse(inputs=inputs, failures=_failures(failures))

        return await self._run_request(context, work())

    async def Diff(self, request: provider_pb2.DiffRequest, context: Context) -> provider_pb2.DiffResponse:
        async def work() -> provider_pb2.DiffResponse:
            _, resource_type = self._resource(request.urn)
            old_inputs, state = from_struct(request.old_inputs), from_struct(request.olds)
            return _diff_response(resource_type.diff(old_inputs, state, from_struct(request.news)))

        return await self._run_request(context, work())

    async def Create(
        self, request: provider_pb2.CreateRequest, context: Context
    ) -> provider_pb2.CreateResponse:
        async def work() -> provider_pb2.CreateResponse:
            operation, resource_type = self._resource(request.urn)
            inputs = from_struct(request.properties)
            if request.preview:
                planned = resource_type.preview_outputs({}, {}, inputs)
                return provider_pb2.CreateResponse(properties=self._to_struct(planned, request.properties))
            resource_id, state = await resource_type.create(operation, inputs)
            return provider_pb2.CreateResponse(
                id=resource_id, properties=self._to_struct(state, request.properties)
            )

        return await self._run_request(context, work())

    async def Read(self, request: provider_pb2.ReadRequest, context: Context) -> provider_pb2.ReadResponse:
        async def work() -> provider_pb2.ReadResponse:
            operation, resource_type = self._resource(request.urn)
            state = await resource_type.read(operation, request.id, from_struct(request.properties))
            if state is None:
                return provider_pb2.ReadResponse()
            inputs = resource_type.inputs_from_state(from_struct(request.inputs), state)
            return provider_pb2.ReadResponse(
                id=request.id,
                properties=self._to_struct(state, request.properties),
                inputs=self._to_struct(inputs, request.inputs),
            )

        return await self._run_request(context, work())

    async def Update(
        self, request: provider_pb2.UpdateRequest, context: Context
    ) -> provider_pb2.UpdateResponse:
        async def work() -> provider_pb2.UpdateResponse:
            operation, resource_type = self._resource(request.urn)
            old_inputs, state = from_struct(request.old_inputs), from_struct(request.olds)
            inputs = from_struct(request.news)
            if request.preview:
                new_state = resource_type.preview_outputs(state, old_inputs, inputs)
            else:
                new_state = await resource_type.update(operation, request.id, state, old_inputs, inputs)
            return provider_pb2.UpdateResponse(properties=self._to_struct(new_state, request.news))

        return await self._run_request(context, work())

    async def Delete(self, request: provider_pb2.DeleteRequest, context: Context) -> empty_pb2.Empty:
        async def work() -> empty_pb2.Empty:
            operation, resource_type = self._resource(request.urn)
            await resource_type.delete(operation, request.id, from_struct(request.properties))
            return empty_pb2.Empty()

        return await self._run_request(context, work())

    async def Invoke(
        self, request: provider_pb2.InvokeRequest, context: Context
    ) -> provider_pb2.InvokeResponse:
        async def work() -> provider_pb2.InvokeResponse:
            answer = await self.invoke(request.tok, from_struct(request.args))
            return provider_pb2.InvokeResponse(**{"return": to_struct(answer)})  # pyright: ignore[reportArgumentType]

        return await self._run_request(context, work())

    async def Cancel(self, request: empty_pb2.Empty, context: Context) -> empty_pb2.Empty:
        for task in self.running:
            if self.can_be_cancelled(task):
                task.cancel()
        return empty_pb2.Empty()

    def can_be_cancelled(self, task: "asyncio.Task[Any]") -> bool:
        """Returns whether an interrupted run ends this operation. Otherwise the run waits for it."""
        return True

    # ---- internals

    def _to_struct(self, properties: Properties, source: struct_pb2.Struct) -> struct_pb2.Struct:
        """Returns the properties as a message. If the provider accepts secrets, those of `source` are secret again."""
        if self.accepts_secrets:
            properties = mark_secrets(properties, find_secrets(source) | self.secret_properties)
        return to_struct(properties)

    def _resource(self, urn: str) -> tuple[Operation, ResourceType]:
        token = urn.split("::")[2].rsplit("$", 1)[-1]
        if token not in self.resource_types:
            raise ProviderError(
                f"unknown resource type {token}: the sandbox's {self.name} provider does not support it"
            )
        return Operation(urn, self.engine), self.resource_types[token]

    async def _run_request(self, context: Context, work: Coroutine[Any, Any, T]) -> T:
        """Runs the work of a request. Cancel can end it, and its error becomes the error of the call."""
        task = asyncio.ensure_future(work)
        self.running.add(task)
        try:
            return await task
        except ResourceInitFailedError as problem:
            await _abort_with_state(context, problem)
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


async def _abort_with_state(context: Context, problem: ResourceInitFailedError) -> None:
    """Ends the call with an error that contains the resource's id and state, so that Pulumi keeps it."""
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
    return {path: (before, after) for path, before, after in find_differences("", old, new)}


def _failures(failures: Failures) -> list[provider_pb2.CheckFailure]:
    return [
        provider_pb2.CheckFailure(property=property_, reason=reason) for property_, reason in failures.items()
    ]


def _diff_response(diff: Diff) -> provider_pb2.DiffResponse:
    if not diff.paths:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)
    property_diff = provider_pb2.PropertyDiff
    detailed = {}
    for path, (before, after) in diff.paths.items():
        replace = bool({path, top_level(path)} & diff.replaces)
        if before is None:
            kind = property_diff.ADD_REPLACE if replace else property_diff.ADD
        elif after is None:
            kind = property_diff.DELETE_REPLACE if replace else property_diff.DELETE
        else:
            kind = property_diff.UPDATE_REPLACE if replace else property_diff.UPDATE
        detailed[path] = property_diff(kind=kind, inputDiff=True)
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
