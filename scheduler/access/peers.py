"""Whose process is at the other end of a connection on loopback: the kernel says so, nobody has to be believed."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

TABLES = {socket.AF_INET: Path("/proc/self/net/tcp"), socket.AF_INET6: Path("/proc/self/net/tcp6")}
_ESTABLISHED = "01"


def uid_of_peer(here: tuple[str, int], there: tuple[str, int]) -> int | None:
    """The user id of the process that connected from `there` (address, port) to `here`; None = it cannot be told.

    Both ends are on this machine, so the other end's socket is in the kernel's table too, with its owner.
    """
    family = socket.AF_INET6 if ":" in there[0] else socket.AF_INET
    wanted = f"{_hexadecimal(family, *there)} {_hexadecimal(family, *here)} {_ESTABLISHED} "
    try:
        with TABLES[family].open(encoding="ascii") as table:
            for line in table:
                if wanted in line:
                    return int(line.split()[7])
    except (OSError, ValueError, IndexError):
        return None  # no Linux, or a kernel that shows none
    return None


def is_ours(uid: int | None) -> bool:
    """Whether a user id is that of this process, or root's, who could read all of it anyway."""
    return uid is not None and uid in {0, os.geteuid()}


def _hexadecimal(family: int, address: str, port: int) -> str:
    """As the kernel writes it: words of 32 bits in the machine's own order."""
    packed = socket.inet_pton(family, address.partition("%")[0])
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
