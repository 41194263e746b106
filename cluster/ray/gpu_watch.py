"""Which GPUs of a node are broken: lost, with memory errors that the hardware could not correct, or after a fatal Xid.

Runs in the node's agent, in a thread of its own: a driver that hangs holds up nobody. Standard library and pynvml.
What cannot be read a second time (an Xid; which counts an administrator has taken note of) is kept in a small file and
counts until the machine boots again.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

FATAL = {
    46: "GPU stopped processing",
    48: "uncorrectable memory error",
    62: "internal micro-controller halt",
    63: "a memory row waits to be remapped",
    64: "a memory row could not be remapped",
    74: "NVLink error",
    79: "GPU has fallen off the bus",
    94: "contained memory error",
    95: "uncontained memory error",
    110: "security fault",
    119: "GPU system processor does not answer",
    120: "GPU system processor error",
    121: "error on the link between chips",
    136: "training of a link failed",
    140: "unrecovered memory error",
    142: "channel could not be removed",
    143: "GPU could not be initialized",
}
"""Xids after which NVIDIA asks for a reset, a reboot or a repair. Others are mostly a program's own fault (13, 31, 43,
45, 68, 69, 109), and a program's fault must not take a GPU from everybody."""
LOST = frozenset({2, 6, 15, 16})
"""nvmlReturn_t: invalid argument (no such index any more), not found, GPU is lost, GPU requires reset."""
ANEW = frozenset({1, 9, 18})
"""nvmlReturn_t after which NVML must be opened again: uninitialized, driver not loaded, version mismatch."""
TIMED_OUT = 10
WAIT = 2000
"""Milliseconds of one wait for events."""
READ_EVERY = 10.0
"""Seconds between two looks at the counters."""
REOPEN = 60.0


class GpuWatch:
    """Watches the GPUs of this node.

    Args:
        memory: the file to remember by.
        boot: identity of this boot of the machine; what was remembered under another one is forgotten.
    """

    def __init__(self, memory: Path, boot: str) -> None:
        self._memory = memory
        self._boot = boot
        self._lock = threading.Lock()
        self._lost: dict[int, str] = {}
        self._counts: dict[str, dict[str, int]] = {}  # by uuid: the counters as they are
        self._indices: dict[str, int] = {}
        self._kept: dict[str, Any] = self._recall()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; for tests."""
        self._stop.set()

    def faults(self) -> dict[int, str]:
        """What is wrong with which GPU, in words."""
        with self._lock:
            found = dict(self._lost)
            for uuid, index in self._indices.items():
                text = self._fault(uuid)
                if text:
                    found.setdefault(index, text)
            return found

    def forgive(self) -> None:
        """An administrator has seen it: Xids are forgotten, and the counters are noted as they are."""
        with self._lock:
            self._kept["xids"] = {}
            self._kept["noted"].update(self._counts)
            self._keep()

    def _fault(self, uuid: str) -> str:
        event = self._kept["xids"].get(uuid)
        if event is not None:
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(event["time"]))
            return f"Xid {event['xid']} at {at}: {FATAL[event['xid']]}"
        now, noted = self._counts.get(uuid, {}), self._kept["noted"].get(uuid, {})
        for name, text in COUNTERS.items():
            if now.get(name, 0) > noted.get(name, 0):
                return text
        return ""

    # ---- the file

    def _recall(self) -> dict[str, Any]:
        fresh: dict[str, Any] = {"boot": self._boot, "count": 0, "xids": {}, "noted": {}}
        with suppress(OSError, ValueError):
            found = json.loads(self._memory.read_text(encoding="utf-8"))
            if isinstance(found, dict) and found.get("boot") == self._boot:
                return {**fresh, **found}
            if isinstance(found, dict):
                # A lifetime's count outlives a boot.
                fresh["noted"] = {
                    uuid: {"ecc_aggregate": counts.get("ecc_aggregate", 0)} for uuid, counts in found["noted"].items()
                }
        return fresh

    def _keep(self) -> None:
        draft = self._memory.with_suffix(".new")
        with suppress(OSError):  # a full disk is a fault of its own; what is known stays known in memory
            self._memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_text(json.dumps(self._kept), encoding="utf-8")
            draft.replace(self._memory)

    # ---- the thread

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                import pynvml  # noqa: PLC0415 - a node without GPUs need not have it
            except ImportError:
                return
            try:
                pynvml.nvmlInit()
            except pynvml.NVMLError:
                self._stop.wait(REOPEN)
                continue
            try:
                self._serve(pynvml)
            except pynvml.NVMLError:
                # Whatever the driver says: it is opened again, and the sampler tells what is wrong with it.
                self._stop.wait(WAIT / 1000)
            finally:
                with suppress(pynvml.NVMLError):
                    pynvml.nvmlShutdown()

    def _serve(self, nvml: ModuleType) -> None:
        """Until NVML must be opened again: counters now and then, events as they come."""
        events = self._listen(nvml)
        try:
            self._read(nvml)
            read = time.monotonic()
            while not self._stop.is_set():
                if events is None:
                    self._stop.wait(WAIT / 1000)
                else:
                    try:
                        self._heard(nvml, nvml.nvmlEventSetWait_v2(events, WAIT))
                    except nvml.NVMLError as error:
                        if error.value != TIMED_OUT:
                            raise
                if time.monotonic() - read >= READ_EVERY or self._lost:
                    self._read(nvml)
                    read = time.monotonic()
        finally:
            if events is not None:
                with suppress(nvml.NVMLError):
                    nvml.nvmlEventSetFree(events)

    def _listen(self, nvml: ModuleType) -> Any:  # noqa: ANN401 - NVML's own handle
        """An event set on every GPU that has events; None = none has."""
        events, some = nvml.nvmlEventSetCreate(), False
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                nvml.nvmlDeviceRegisterEvents(
                    nvml.nvmlDeviceGetHandleByIndex(index), nvml.nvmlEventTypeXidCriticalError, events
                )
                some = True
            except nvml.NVMLError as error:
                if error.value in ANEW:
                    raise
        if some:
            return events
        nvml.nvmlEventSetFree(events)
        return None

    def _heard(self, nvml: ModuleType, event: Any) -> None:  # noqa: ANN401 - NVML's own struct
        number = int(event.eventData)
        if number not in FATAL:
            return
        try:
            uuid = nvml.nvmlDeviceGetUUID(event.device)
        except nvml.NVMLError:  # it does not answer any more: the next look finds it lost
            self._read(nvml)
            return
        with self._lock:
            self._kept["xids"][uuid] = {"xid": number, "time": time.time()}
            self._keep()

    def _read(self, nvml: ModuleType) -> None:
        """Which GPUs answer, and their counters."""
        count = nvml.nvmlDeviceGetCount()
        lost: dict[int, str] = {}
        counts: dict[str, dict[str, int]] = {}
        indices: dict[str, int] = {}
        for index in range(max(count, self._kept["count"])):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                uuid = nvml.nvmlDeviceGetUUID(handle)
                nvml.nvmlDeviceGetMemoryInfo(handle)
            except nvml.NVMLError as error:
                if error.value in ANEW:
                    raise
                if error.value in LOST:
                    lost[index] = f"GPU lost: NVML says {str(error).lower()}"
                continue
            indices[uuid], counts[uuid] = index, _counters(nvml, handle)
        with self._lock:
            self._lost, self._counts = lost, counts
            self._indices = {**{uuid: at for uuid, at in self._indices.items() if at in lost}, **indices}
            changed = count > self._kept["count"]
            self._kept["count"] = max(count, self._kept["count"])
            for uuid, now in counts.items():
                # What a GPU has counted in the years before us is its past. What has fallen since may rise again.
                before = self._kept["noted"].get(uuid, {"ecc_aggregate": now.get("ecc_aggregate", 0)})
                noted = {name: min(number, now.get(name, 0)) for name, number in before.items()}
                changed |= noted != self._kept["noted"].get(uuid)
                self._kept["noted"][uuid] = noted
            if changed:
                self._keep()


COUNTERS = {
    "ecc_volatile": "uncorrectable memory (ECC) errors since the driver was loaded",
    "ecc_aggregate": "new uncorrectable memory (ECC) errors",
    "pages": "memory pages wait for a reset to be retired",
    "rows": "memory rows wait for a reset to be remapped",
    "rows_failed": "a memory row could not be remapped",
}
"""The counters, and what it means when one is above what was noted."""


def _counters(nvml: ModuleType, handle: object) -> dict[str, int]:
    """Those that this GPU has."""
    found: dict[str, int | None] = {}

    def ask(call: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - as the call returns
        try:
            return call(handle, *arguments)
        except nvml.NVMLError as error:  # not every GPU has every counter
            if error.value in ANEW:
                raise
            return None

    uncorrected = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
    found["ecc_volatile"] = ask(nvml.nvmlDeviceGetTotalEccErrors, uncorrected, nvml.NVML_VOLATILE_ECC)
    found["ecc_aggregate"] = ask(nvml.nvmlDeviceGetTotalEccErrors, uncorrected, nvml.NVML_AGGREGATE_ECC)
    found["pages"] = ask(nvml.nvmlDeviceGetRetiredPagesPendingStatus)
    _, _, found["rows"], found["rows_failed"] = ask(nvml.nvmlDeviceGetRemappedRows) or (None,) * 4
    return {name: number for name, number in found.items() if number is not None}


def boot_identity() -> str:
    """Which boot of the machine this is."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
