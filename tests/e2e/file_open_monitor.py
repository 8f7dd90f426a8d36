"""Records each file in some folders when a process opens it (before the open returns) and when it was written.

usage: file_open_monitor.py FOLDER...

Runs on a machine. Prints `ready`; when its standard input closes, prints what it recorded as JSON.
"""

import ctypes
import json
import os
import select
import struct
import sys
from pathlib import Path

EVENT = struct.Struct("IBBHQii")
FAN_CLASS_CONTENT, FAN_MARK_ADD, FAN_ALLOW, AT_FDCWD = 4, 1, 1, -100
FAN_CLOSE_WRITE, FAN_OPEN_PERM, FAN_EVENT_ON_CHILD = 0x8, 0x10000, 0x08000000


def _check(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def record_opens(folders: list[str]) -> list[dict[str, object]]:
    libc = ctypes.CDLL(None, use_errno=True)
    group = _check(libc.fanotify_init(FAN_CLASS_CONTENT, os.O_RDONLY))
    watched = ctypes.c_uint64(FAN_OPEN_PERM | FAN_CLOSE_WRITE | FAN_EVENT_ON_CHILD)
    for folder in folders:
        _check(libc.fanotify_mark(group, FAN_MARK_ADD, watched, AT_FDCWD, folder.encode()))
    print("ready", flush=True)
    recorded: list[dict[str, object]] = []
    while True:
        readable, _, _ = select.select([group, sys.stdin], [], [])
        if group not in readable:
            return recorded
        buffer = os.read(group, 4096)
        while buffer:
            length, _, _, _, mask, file, _ = EVENT.unpack_from(buffer)
            buffer = buffer[length:]
            status = os.fstat(file)
            recorded.append(
                {
                    "file": str(Path(f"/proc/self/fd/{file}").readlink()),
                    "inode": status.st_ino,
                    "mode": f"{status.st_mode & 0o7777:04o}",
                    "size": status.st_size,
                    "has_key": b"PRIVATE KEY" in os.read(file, 65536),
                }
            )
            if mask & FAN_OPEN_PERM:
                os.write(group, struct.pack("iI", file, FAN_ALLOW))
            os.close(file)


if __name__ == "__main__":
    print(json.dumps(record_opens(sys.argv[1:])))
