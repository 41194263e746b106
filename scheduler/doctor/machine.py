"""The machine: limits, memory, disks, clock."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from importlib import metadata
from pathlib import Path

import psutil

from .check import Check, fail, ok, skip, warn
from .probe import Probe

MIB, GIB = 1 << 20, 1 << 30
OPEN_FILES = 65_536
RAY_DISK_LIMIT = 0.95
"""Share of a disk in use from which Ray writes no more objects to it (local_fs_capacity_threshold)."""


def size(count: float) -> str:
    """Bytes for a person."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"


def python(_probe: Probe) -> Check:
    """Python and torch, by their metadata: importing torch would take a second."""
    version = ".".join(map(str, sys.version_info[:3]))
    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return warn(
            "python",
            f"Python {version}, no torch",
            why="jobs that use this environment and train with torch fail at their first import",
            fix="pip install torch, or have your jobs bring their own environment",
        )
    return ok("python", f"Python {version}, torch {torch}; every node of a Ray cluster needs the same Python {version}")


def open_files(_probe: Probe) -> Check:
    """RLIMIT_NOFILE. Ray raises the soft limit to the hard one by itself, so the hard one counts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft} open files, at most {'no limit' if hard == resource.RLIM_INFINITY else hard}"
    if hard == resource.RLIM_INFINITY or hard >= OPEN_FILES:
        return ok("open-files", found)
    return warn(
        "open-files",
        found,
        why="each worker and each connection of Ray takes descriptors; when they run out, workers fail to start",
        fix=f"raise the hard limit to {OPEN_FILES}: LimitNOFILE= of a systemd unit, or /etc/security/limits.conf",
    )


def shared_memory(probe: Probe) -> Check:
    """Room of /dev/shm, where Ray keeps objects and torch's data loaders pass batches."""
    if not probe.shm.is_dir():
        return skip("shared-memory", f"no {probe.shm} on this system")
    room = os.statvfs(probe.shm)
    total = room.f_blocks * room.f_frsize
    wanted = min(2 * GIB, int(0.3 * psutil.virtual_memory().total))
    found = f"{probe.shm} holds {size(total)}, {size(room.f_bavail * room.f_frsize)} free"
    if total >= wanted:
        return ok("shared-memory", found)
    return warn(
        "shared-memory",
        found,
        why="Ray falls back to slow files on disk, and torch's data loaders die with a bus error",
        fix=f"mount -o remount,size=50% {probe.shm}; in Docker --shm-size={max(wanted // MIB, 1)}m",
    )


def memory_limit(probe: Probe) -> Check:
    """The memory that the control group leaves us, which may be less than the machine has."""
    total = psutil.virtual_memory().total
    limit, used = _cgroup_memory(probe)
    if limit is None or limit >= total:
        return ok("memory-limit", f"{size(total)}, no lower limit on this control group")
    found = f"limited to {size(limit)} of {size(total)}, {size(used)} in use"
    if limit >= 2 * GIB and used < 0.9 * limit:
        return ok("memory-limit", found)
    return warn(
        "memory-limit",
        found,
        why="beyond it the kernel kills a process, and that may be the control plane, or a raylet with its jobs",
        fix="raise the container's memory (docker --memory, resources.limits.memory) or MemoryMax= of the unit",
    )


def _cgroup_memory(probe: Probe) -> tuple[int | None, int]:
    """Limit (None = none) and use in bytes; the tightest limit on the way from our group to the root."""
    files = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
    tightest: tuple[int | None, int] = None, 0
    for line in probe.own_cgroup.read_text().splitlines() if probe.own_cgroup.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = probe.cgroups / ("memory" if controllers else "")
        group = root / path.lstrip("/")
        for folder in [group, *group.parents]:
            if not folder.is_relative_to(root):
                break
            for limit_file, use_file in files:
                limit, use = _number(folder / limit_file), _number(folder / use_file)
                if limit is not None and (tightest[0] is None or limit < tightest[0]):
                    tightest = limit, use or 0
    return tightest


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None  # not there, or "max"


def disks(probe: Probe) -> list[Check]:
    """Room where the control plane and Ray write."""
    state = _disk(
        "disk-state",
        probe.existing(probe.state_dir),
        least=100 * MIB,
        low=GIB,
        full=1.0,
        why="when it is full nothing can be recorded: submissions are refused and no job starts",
    )
    ray = _disk(
        "disk-ray",
        probe.existing(probe.ray_folder),
        least=200 * MIB,
        low=5 * GIB,
        full=RAY_DISK_LIMIT,
        why=f"Ray logs there, and below {1 - RAY_DISK_LIMIT:.0%} free it spills no more objects and tasks fail",
    )
    return [state, ray]


def _disk(name: str, path: Path, *, least: int, low: int, full: float, why: str) -> Check:
    room = os.statvfs(path)
    total, free = room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize
    share = 1 - free / total if total else 1.0
    found = f"{path}: {size(free)} free of {size(total)}"
    fix = f"free space on the file system of {path} (`du -xh {path} | sort -h | tail`), or move it to a larger one"
    if free < least or share >= full:
        return fail(name, found, why=why, fix=fix)
    if free < low or share >= full - 0.05:
        return warn(name, found, why=why, fix=fix)
    return ok(name, found)


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2); the padding at its end is generous."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 32),
    )


UNSYNCHRONIZED = 0x40  # STA_UNSYNC


def clock_state() -> tuple[bool, float] | None:
    """Whether the kernel's clock is kept in step with others, and its greatest error in seconds; None = not told."""
    try:
        call = ctypes.CDLL(None, use_errno=True).adjtimex
    except (AttributeError, OSError):
        return None  # not Linux
    timex = _Timex()
    if call(ctypes.byref(timex)) < 0:
        return None
    return not timex.status & UNSYNCHRONIZED, timex.maxerror / 1e6


def clock(probe: Probe, state: tuple[bool, float] | None = None) -> Check:
    """Time synchronization here, and how far the nodes' clocks are from ours."""
    far = {node: skew for node, skew in probe.skews.items() if abs(skew) > 1.0}
    fix = "run a time service on every node: timedatectl set-ntp true, or chrony"
    if far:
        worst = max(far, key=lambda node: abs(far[node]))
        return (fail if abs(far[worst]) > 30.0 else warn)(  # noqa: PLR2004 - seconds
            "clock",
            f"clocks differ: {', '.join(f'{node} {skew:+.1f} s' for node, skew in sorted(far.items()))}",
            why="samples and logs of those nodes are out of order, and tokens and certificates may be refused",
            fix=fix,
        )
    state = state or clock_state()
    nodes = f"; {len(probe.skews)} nodes within 1 s" if probe.skews else ""
    if state is None:
        return skip("clock", f"the kernel does not tell whether the clock is synchronized{nodes}")
    synchronized, error = state
    if synchronized:
        return ok("clock", f"synchronized, error below {error:.3f} s{nodes}")
    return warn(
        "clock",
        f"not synchronized by any time service{nodes}",
        why="clocks drift apart by seconds a day; begin times, ages and samples of several nodes then disagree",
        fix=fix,
    )
