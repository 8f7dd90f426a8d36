"""Sends a datagram to each UDP port of a machine, or sees which arrive there.

usage: udp_probe.py send ADDRESS SOURCE | udp_probe.py receive

A raw socket gets what security groups let through, whoever listens; so all ports are tried at once.
"""

import json
import selectors
import socket
import struct
import sys
import time

MARK = b"udp_probe"


def send(address: str, source: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as side:
        if source:
            side.bind((source, 0))
        for _ in range(2):  # one may be lost
            for port in range(1, 65536):
                side.sendto(MARK, (address, port))
                if port % 512 == 0:
                    time.sleep(0.001)  # queues on the way are short


def receive() -> None:
    """Prints `ready`; when standard input ends, the ports that a datagram arrived at."""
    arrived: set[int] = set()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as side,
        selectors.DefaultSelector() as ready,
    ):
        side.setsockopt(socket.SOL_SOCKET, 33, 1 << 25)  # SO_RCVBUFFORCE
        ready.register(side, selectors.EVENT_READ)
        ready.register(sys.stdin, selectors.EVENT_READ)
        print("ready", flush=True)
        while True:
            sources = [key.fileobj for key, _ in ready.select()]
            if side in sources:
                packet = side.recv(2048)
                datagram = packet[(packet[0] & 15) * 4 :]
                if datagram[8:] == MARK:
                    arrived.add(struct.unpack("!HH", datagram[:4])[1])
            elif sys.stdin in sources:
                print(json.dumps(sorted(arrived)))
                return


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2], sys.argv[3])
    else:
        receive()
