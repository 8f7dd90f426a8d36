"""The output of a command: collected for the state, and shown while the command runs."""

import asyncio
import json
from dataclasses import dataclass, field

from sandbox.plugins.provider import Operation, ProviderError

LINE_LIMIT = 64 * 1024


@dataclass
class Output:
    """The output per stream and in the order of its arrival. Shows the lines of the `logged` streams."""

    operation: Operation
    logged: tuple[str, ...]
    streams: dict[str, bytearray] = field(
        default_factory=lambda: {"stdout": bytearray(), "stderr": bytearray()}
    )
    together: bytearray = field(default_factory=bytearray)
    line: bytearray = field(default_factory=bytearray)

    async def add(self, stream: str, data: bytes) -> None:
        """Adds output. Hangs on a line over 64 KiB, as the official provider does."""
        self.streams[stream] += data
        self.together += data
        if stream not in self.logged:
            return
        *lines, rest = (bytes(self.line) + data).split(b"\n")
        self.line = bytearray(rest)
        for line in lines:
            await self.operation.status(line.decode(errors="replace").removesuffix("\r"))
        if len(rest) >= LINE_LIMIT or any(len(line) >= LINE_LIMIT for line in lines):
            await self.operation.warn(
                "a line of output is longer than 64 KiB: the command provider hangs here"
            )
            await asyncio.Event().wait()

    async def finish(self) -> None:
        """Shows the last line if it has no line end."""
        if self.line:
            await self.operation.status(self.line.decode(errors="replace"))

    def text(self, stream: str) -> str:
        """Returns the output of a stream without its last line end."""
        return self.streams[stream].decode(errors="replace").removesuffix("\n")

    def failure(self, reason: str, command: str) -> ProviderError:
        """Returns the error of a failed command, with the command and its output as in the official provider."""
        printed = self.together.decode(errors="replace")
        return ProviderError(f"{reason}: running {json.dumps(command, ensure_ascii=False)}:\n{printed}")
