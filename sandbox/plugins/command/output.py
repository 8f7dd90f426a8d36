"""What a command prints."""

import asyncio
import json
from dataclasses import dataclass, field

from sandbox.plugins.provider import ProviderError, Run

LINE_LIMIT = 64 * 1024


@dataclass
class Output:
    """What a command prints: collected per stream and in the order it came, and shown while it runs."""

    run: Run
    logged: tuple[str, ...]
    streams: dict[str, bytearray] = field(
        default_factory=lambda: {"stdout": bytearray(), "stderr": bytearray()}
    )
    together: bytearray = field(default_factory=bytearray)
    line: bytearray = field(default_factory=bytearray)

    async def add(self, stream: str, data: bytes) -> None:
        self.streams[stream] += data
        self.together += data
        if stream not in self.logged:
            return
        *lines, rest = (bytes(self.line) + data).split(b"\n")
        self.line = bytearray(rest)
        for line in lines:
            await self.run.status(line.decode(errors="replace").removesuffix("\r"))
        if len(rest) >= LINE_LIMIT or any(len(line) >= LINE_LIMIT for line in lines):
            await self.run.warn(
                "a line of output is longer than 64 KiB: the command provider waits here for ever"
            )
            await asyncio.Event().wait()

    async def finish(self) -> None:
        if self.line:
            await self.run.status(self.line.decode(errors="replace"))

    def text(self, stream: str) -> str:
        return self.streams[stream].decode(errors="replace").removesuffix("\n")

    def failure(self, reason: str, command: str) -> ProviderError:
        printed = self.together.decode(errors="replace")
        return ProviderError(f"{reason}: running {json.dumps(command, ensure_ascii=False)}:\n{printed}")
