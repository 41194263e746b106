"""What is left on a GPU that should be empty. Runs in the node's agent; standard library only.

A GPU is clean when no process computes on it and its memory is in nobody's use. Some programs live on GPUs for ever and
do no harm: a display, and the daemons that NVIDIA ships.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

HARMLESS = ("nvidia-cuda-mps", "nvidia-persiste", "nv-hostengine", "nv-fabricmanage", "dcgm")
"""How the names of such processes begin; the kernel cuts names at 15 letters."""


def dirt(gpu: Mapping[str, Any], spare: int, clean: int = 0) -> str:
    """What is on a GPU that no attempt should be using; empty = nothing, or nothing that can be told.

    Args:
        gpu: its figures, as `agent.GpuFigures`.
        spare: bytes that may be in use without a process.
        clean: bytes in use when it was last seen without any process.
    """
    busy = [process for process in gpu["processes"] or () if not _harmless(process, spare)]
    if busy:
        return "; ".join(map(describe, busy[:3])) + (f" and {len(busy) - 3} more" if len(busy) > 3 else "")  # noqa: PLR2004 - a line's worth
    used = gpu["memory_used"]
    if gpu["processes"] is None or used is None or used <= clean + spare:
        return ""
    return "memory is in use by no process that can be seen"


def left_by(gpu: Mapping[str, Any], owner: tuple[int, int]) -> str:
    """The processes that one attempt (job, attempt) still has on a GPU that it shared with others."""
    mine = [process for process in gpu["processes"] or () if (process["job"], process["attempt"]) == owner]
    return "; ".join(map(describe, mine[:3]))


def describe(process: Mapping[str, Any]) -> str:
    """A process for people: whose it is, as far as it can be told. Holds no figure that moves."""
    whose = f"of job {process['job']}" if process["job"] else process["name"] or "not of this machine's view"
    user = f", {process['user']}" if process["user"] and not process["job"] else ""
    return f"process {process['pid']} ({whose}{user}) is on it"


def _harmless(process: Mapping[str, Any], spare: int) -> bool:
    if process["type"] == "graphics" and (process["memory"] or 0) <= spare and not process["job"]:
        return True
    return (process["name"] or "").startswith(HARMLESS)


class Baselines:
    """The least memory that each GPU was seen to use with no process on it: what the driver keeps for itself."""

    def __init__(self) -> None:
        self._least: dict[int, int] = {}

    def learn(self, gpus: Iterable[Mapping[str, Any]]) -> None:
        """From a sample. Memory that leaked later is above the least."""
        for gpu in gpus:
            if gpu["processes"] == [] and gpu["memory_used"] is not None:
                index = gpu["index"]
                self._least[index] = min(gpu["memory_used"], self._least.get(index, gpu["memory_used"]))

    def of(self, index: int, most: int) -> int:
        """Bytes; at most `most`, since the first look at a GPU may find memory that leaked before."""
        return min(self._least.get(index, 0), most)


def tagged(variable: str, prefix: str) -> list[int]:
    """Processes whose environment has the variable with a value that begins so."""
    needle = f"{variable}={prefix}".encode()
    found = []
    with os.scandir("/proc") as entries:
        pids = [int(entry.name) for entry in entries if entry.name.isdigit()]
    for pid in pids:
        if pid != os.getpid():
            with suppress(OSError):
                words = Path(f"/proc/{pid}/environ").read_bytes()
                if words.startswith(needle) or b"\0" + needle in words:
                    found.append(pid)
    return found


def kill(pids: Sequence[int]) -> None:
    """SIGKILL each that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def born(pid: int) -> int:
    """When a process began, in ticks since boot; 0 = it is gone, or a zombie that holds nothing any more."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = text[text.rindex(b")") + 2 :].split()
    return 0 if fields[0] in {b"Z", b"X"} else int(fields[19])
