"""Why a rank ended without success: looked for in the tail of its log, on the node where that lies.

Standard library only, and one file: its text is sent to nodes on which nothing of ours is installed, and run there as
`python -I -S gpusched_endings.py < request.json` once a rank has failed. It prints lines of JSON: first what the
built-in patterns say, then which of the user's own match so far. A pattern of the user's may take for ever on some
line: it is looked for last, in lines that are cut, and a timer of the kernel's ends this process.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
from collections.abc import Sequence
from typing import Any

TAIL = 64 * 1024
"""Bytes at the end of a log that are looked at."""
LINE = 1000
"""Characters of a line, beyond which it is cut."""
LINES = 2000
WITHIN = 2.0
"""Seconds for all of it."""
QUOTED = 120
"""Characters of a match that are shown."""

GPU_OOM = re.compile(
    r"CUDA out of memory|OutOfMemoryError: (?:CUDA|HIP)|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation"
    r"|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|RESOURCE_EXHAUSTED: Out of memory"
)
HOST_OOM = re.compile(
    r"^MemoryError\b|\bMemoryError: |std::bad_alloc|DefaultCPUAllocator: can't allocate memory"
    r"|Cannot allocate memory|ArrayMemoryError|OutOfMemoryError: (?!CUDA|HIP)"
)
KILLED = re.compile(r"\bSIGKILL\b|[Ss]ignal:? ?9\b|exit ?code\s*:\s*-9\b|^Killed$|: line \d+:\s+\d+ Killed\b")
NO_COMMAND = re.compile(r"command not found|: No such file or directory|: Permission denied|can't open file")

PATTERNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("xid", (r"NVRM: Xid", r"\bXid \((?:PCI|GPU)")),
    (
        "ecc",
        (
            r"uncorrectable ECC error",
            r"CUDA_ERROR_ECC_UNCORRECTABLE",
            r"cudaErrorECCUncorrectable",
            r"[Dd]ouble.bit ECC error",
        ),
    ),
    (
        "gpu_lost",
        (
            r"GPU has fallen off the bus",
            r"GPU is lost",
            r"CUDA_ERROR_NO_DEVICE",
            r"no CUDA-capable device is detected",
            r"cudaErrorDevicesUnavailable",
            r"CUDA-capable device\(s\) is/are busy or unavailable",
            r"Unable to determine the device handle for",
            r"CUDA driver initialization failed",
            r"CUDA_ERROR_SYSTEM_NOT_READY",
        ),
    ),
    (
        "nccl",
        (
            r"NCCL WARN",
            r"NCCL error",
            r"nccl(?:System|UnhandledCuda|Internal|Remote)Error",
            r"Watchdog caught collective operation timeout",
        ),
    ),
    (
        "cuda",
        (
            r"CUDA error: (?!out of memory|uncorrectable)",
            r"CUDA_ERROR_(?:ILLEGAL|LAUNCH|ASSERT|UNKNOWN)",
            r"device-side assert triggered",
            r"(?:CUBLAS|CUDNN)_STATUS_(?:EXECUTION|INTERNAL)",
        ),
    ),
    ("disk_full", (r"No space left on device", r"\bENOSPC\b")),
    (
        "io",
        (
            r"Input/output error",
            r"Stale file handle",
            r"Transport endpoint is not connected",
            r"Read-only file system",
        ),
    ),
    (
        "shm",
        (r"insufficient shared memory", r"unable to (?:open|write to|mmap) (?:shared memory|file </torch_)"),
    ),
    (
        "network",
        (
            r"Connection (?:reset|refused|closed) by",
            r"Connection refused",
            r"Socket Timeout",
            r"No route to host",
            r"Network is unreachable",
            r"Temporary failure in name resolution",
        ),
    ),
)
"""Name and texts of each built-in pattern; the first that matches is the cause. jobs/causes.py has them in words."""


def tail(path: str) -> list[str]:
    """The last lines of a log, each cut to LINE characters; none when there is no log."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib takes longer to load than all of this
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            text = file.read(TAIL).decode(errors="replace")
    except OSError:
        return []
    lines = text.split("\n")
    return [line.strip("\r")[:LINE] for line in (lines if size <= TAIL else lines[1:])[-LINES:]]


def first(pattern: re.Pattern[str], lines: Sequence[str]) -> str:
    """What matches first, cut to QUOTED characters, without what a terminal would obey; empty = nothing."""
    for line in lines:
        found = pattern.search(line)
        if found is not None:
            return "".join(one if one.isprintable() else "?" for one in found.group(0)[:QUOTED].strip())
    return ""


def built_in(request: dict[str, Any], lines: Sequence[str]) -> dict[str, Any]:
    """What the code, the counters of the kernel and the built-in patterns say.

    Args:
        request: `exit_code`, `signal` (a number or None), `message` (why the command could not be started),
            `setting_up` (whether `setup` was not over), `kills` (what `oom_kills` said when the rank was started).
        lines: the tail of the log.

    Returns:
        `cause`, `which`, `cause_detail` and `patterns`, as jobs/causes.py says.
    """
    code = request["exit_code"]
    number = request.get("signal") or (code - 128 if code > 128 else 0)  # noqa: PLR2004 - as shells have it
    patterns: dict[str, str] = {}
    for name, texts in PATTERNS:
        shown = first(re.compile("|".join(texts)), lines)
        if shown:
            patterns[name] = shown
    cause, which, detail = _cause(request, lines, number, patterns)
    return {"cause": cause, "which": which, "cause_detail": detail, "patterns": list(patterns)}


Found = tuple[str, str, str]
"""Cause, its kind, and words."""


def _cause(request: dict[str, Any], lines: Sequence[str], number: int, patterns: dict[str, str]) -> Found:
    code = request["exit_code"]
    name = signal.Signals(number).name if number in {one.value for one in signal.Signals} else ""
    killed = name == "SIGKILL" or bool(first(KILLED, lines))
    found = _not_started(request, lines) or _out_of_memory(request, lines, killed=killed)
    if found:
        return found
    for pattern, shown in patterns.items():
        return "pattern", pattern, f"its log shows {pattern}: {shown}"
    if name == "SIGKILL":
        return "signal", name, "ended by SIGKILL, which gpusched did not send; a full memory is the usual reason"
    if name:
        return "signal", name, f"ended by {name}"
    return "exit", str(code), f"exit code {code}"


def _not_started(request: dict[str, Any], lines: Sequence[str]) -> Found | None:
    """That it never came to its command, or that the command is not there."""
    code = request["exit_code"]
    if request.get("message"):
        return "start", "node", str(request["message"])
    if request.get("setting_up"):
        return "start", "setup", f"its setup failed with exit code {code}"
    missing = first(NO_COMMAND, lines[-20:]) if code in {126, 127} else ""
    if missing:
        return "start", "command", f"its command cannot be run: {missing.strip(': ')} (exit code {code})"
    return None


def _out_of_memory(request: dict[str, Any], lines: Sequence[str], *, killed: bool) -> Found | None:
    """By the kernel's counters, if something of the rank was killed; else by the log."""
    before, now = request.get("kills") or {}, oom_kills()
    for where, words in (("cgroup", "in its cgroup"), ("machine", "on this machine meanwhile")):
        kills = now[where] - before.get(where, now[where])
        if killed and kills > 0:
            return "oom", "", f"out of memory: the kernel killed {kills} process{'es' * (kills > 1)} {words}"
    gpu, host = first(GPU_OOM, lines), first(HOST_OOM, lines)
    if gpu:
        return "gpu_oom", "", f"out of GPU memory: {gpu}"
    return ("oom", "", f"out of memory: {host}") if host else None


def oom_kills() -> dict[str, int]:
    """Processes that the kernel has killed for want of memory so far: of our `cgroup`, and of the whole `machine`."""
    return {"cgroup": max(map(_oom_kills, _memory_events()), default=0), "machine": _oom_kills("/proc/vmstat")}


def _memory_events() -> list[str]:
    """The files in which the kernel counts for our cgroup: of version 2, or of version 1."""
    found = []
    with contextlib.suppress(OSError), open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - see `tail`
        for line in file:
            _, kinds, path = line.rstrip("\n").split(":", 2)
            if not kinds:
                found.append(f"/sys/fs/cgroup{path.rstrip('/')}/memory.events")
            elif "memory" in kinds.split(","):
                found.append(f"/sys/fs/cgroup/memory{path.rstrip('/')}/memory.oom_control")
    return found


def _oom_kills(path: str) -> int:
    with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii", errors="replace") as file:  # noqa: PTH123 - see `tail`
        for line in file:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def matched(patterns: Sequence[str], lines: Sequence[str]) -> list[int]:
    """Which of the user's patterns match a line of the tail, by their place."""
    found = []
    for at, text in enumerate(patterns):
        pattern = re.compile(text)
        if any(pattern.search(line) for line in lines):
            found.append(at)
            tell({"matched": found})  # at once: the next one may not come to an end
    return found


def tell(found: dict[str, Any]) -> None:
    """Print a line of what is found."""
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the request; print what is found. With `log` and `patterns`, see `built_in` for the rest."""
    signal.setitimer(signal.ITIMER_REAL, WITHIN)  # its signal ends the process, also inside a regular expression
    request = json.load(sys.stdin)
    lines = tail(request["log"])
    tell(built_in(request, lines))
    matched(request.get("patterns") or (), lines)


if __name__ == "__main__":
    main()
