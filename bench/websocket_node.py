"""A node for WebSockets: accepts each upgrade and sends everything back. Answers 200 to any other request. Runs in the image."""

import asyncio
import sys

UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


class Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.upgraded = False

    def data_received(self, data: bytes) -> None:
        if self.upgraded:
            self.transport.write(data)
        elif b"upgrade: websocket" in data.lower():
            self.upgraded = True
            self.transport.write(UPGRADED)
        else:
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(
        Connection, "0.0.0.0", int(sys.argv[1]), backlog=4096
    )
    await server.serve_forever()


asyncio.run(main())
