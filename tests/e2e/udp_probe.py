"""Sends datagrams to ranges of UDP ports, or records the ports at which datagrams arrive.

usage: udp_probe.py send ADDRESS SOURCE FIRST-LAST... | udp_probe.py receive

A raw socket receives every datagram that the security groups permit, so one process records all ports.
"""

import json
import selectors
import socket
import struct
import sys
import time

MARK = b"udp_probe"


def send_datagram(endpoint: socket.socket, target: tuple[str, int]) -> None:
    """Sends a datagram. Waits while the kernel's table of connections is full: the entries of earlier scans expire in two minutes."""
    deadline = time.monotonic() + 300
    while True:
        try:
            endpoint.sendto(MARK, target)
            return
        except PermissionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def send(address: str, source: str, ranges: list[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        if source:
            endpoint.bind((source, 0))
        for first, last in (map(int, ports.split("-")) for ports in ranges):
            for port in range(first, last + 1):
                send_datagram(endpoint, (address, port))
                if port % 512 == 0:
                    time.sleep(0.001)  # avoids overflowing the queues on the path


def receive() -> None:
    """Prints `ready`; when standard input closes, prints the ports that received a datagram."""
    ports: set[int] = set()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as endpoint,
        selectors.DefaultSelector() as selector,
    ):
        endpoint.setsockopt(socket.SOL_SOCKET, 33, 1 << 25)  # SO_RCVBUFFORCE
        selector.register(endpoint, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        print("ready", flush=True)
        while True:
            ready_inputs = [key.fileobj for key, _ in selector.select()]
            if endpoint in ready_inputs:
                packet = endpoint.recv(2048)
                datagram = packet[(packet[0] & 15) * 4 :]
                if datagram[8:] == MARK:
                    ports.add(struct.unpack("!HH", datagram[:4])[1])
            elif sys.stdin in ready_inputs:
                print(json.dumps(sorted(ports)))
                return


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        receive()
