"""What one node does: its GPUs (NVML) and the processes of the jobs on it (/proc).

Runs on every node of the cluster and imports nothing of ours, so that it ships alone: standard library, psutil, pynvml.
Which job holds which GPU is the control plane's knowledge; here a process is known to be a job's

- by GPUSCHED_JOB_ID and GPUSCHED_ATTEMPT in the environment that it was started with,
- or because its parent was a job's when the process was first seen (it may have cleared its environment),
- or because `watch` named it. Ray's workers need that: they write their title over their own environment.

A sample costs what changed. One listing of /proc gives each process's inode number, and that tells a process from a
later one with the same pid, so a process is examined when it is new and not again; only the processes of jobs are read
each time.
"""

from __future__ import annotations

import os
import pwd
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypedDict

import psutil


class GpuProcess(TypedDict):
    """A process on a GPU: memory in bytes, type compute or graphics, and whose it is.

    foreign: True = in no job of ours; None = cannot be told (gone already, in another container, environment
    overwritten). name and user say who a process is that is in no job; None for those of jobs.
    """

    pid: int
    memory: int | None
    type: str
    job: int | None
    attempt: int | None
    foreign: bool | None
    name: str | None
    user: str | None


class GpuFigures(TypedDict):
    """One GPU now. utilization 0 to 1, memory in bytes, power in watts, temperature in Celsius; None = not told."""

    index: int
    uuid: str | None
    name: str | None
    utilization: float | None
    memory_used: int | None
    memory_total: int | None
    power: float | None
    temperature: int | None
    processes: list[GpuProcess] | None


class JobFigures(TypedDict):
    """A job's processes on this node: cpu in cores since the last sample, memory as the sum of resident bytes.

    Shared pages count once a process, as in top and ps; the exact share would cost milliseconds a process.
    """

    job: int
    attempt: int
    cpu: float | None
    memory: int
    processes: int
    pids: list[int]


class HostFigures(TypedDict):
    """The machine: cpu in cores busy since the last sample, memory and disk in bytes."""

    cpu: float | None
    cpus: int
    memory_used: int
    memory_total: int
    disk_free: int
    disk_total: int


class Sample(TypedDict):
    """What `NodeSampler.sample` returns; plain values, ready for JSON. `took` is its own cost in seconds."""

    time: float
    node: str
    gpus: list[GpuFigures]
    nvml: str | None
    jobs: list[JobFigures]
    host: HostFigures
    took: float


class Owner(NamedTuple):
    """Whose a process is."""

    job: int
    attempt: int


class NodeSampler:
    """Samples one node.

    Args:
        node: the host's lasting name, put into each sample.
        only: further variables that a job's process must carry to count, such as the node's name where several nodes
            of a test share one machine.
        disk: a path on the file system whose room is told.
        patience: seconds that NVML may take. A driver that hangs costs this once; until it answers, figures are None.
    """

    def __init__(
        self, node: str, *, only: Mapping[str, str] | None = None, disk: str = "/", patience: float = 2.0
    ) -> None:
        self.node = node
        self._disk = disk
        self._gpus = _Gpus(patience)
        self._processes = _Processes(only or {})
        self._last: tuple[float, float] | None = None

    def watch(self, pid: int, job: int, attempt: int) -> None:
        """Count this process and what it starts to the attempt, whatever its environment says."""
        self._processes.watch(pid, Owner(job, attempt))

    def sample(self, now: float) -> Sample:
        """Everything as it is. `now` is only the stamp: rates are over the time that passed, even if a clock was set.

        The first sample has no rates. Where NVML is missing or fails, `gpus` is empty or has None in place of figures,
        and `nvml` says why.
        """
        began = time.perf_counter()
        clock = time.clock_gettime(time.CLOCK_BOOTTIME)
        jobs = self._processes.read(clock)
        gpus, why = self._gpus.read(clock)
        for gpu in gpus:
            for process in gpu["processes"] or ():
                self._processes.name(process)
        host = self._host(clock)
        return {
            "time": now,
            "node": self.node,
            "gpus": gpus,
            "nvml": why,
            "jobs": jobs,
            "host": host,
            "took": round(time.perf_counter() - began, 6),
        }

    def gpus(self) -> list[GpuFigures]:
        """The GPUs alone, with whose their processes are: a look between two samples. Their rates stay as they were."""
        clock = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._processes.look(clock)
        gpus, _ = self._gpus.read(clock)
        for gpu in gpus:
            for process in gpu["processes"] or ():
                self._processes.name(process)
        return gpus

    def _host(self, clock: float) -> HostFigures:
        times = psutil.cpu_times()
        # User time includes what virtual machines used as guests of this one.
        busy = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
        cpu = None
        if self._last is not None and clock > self._last[0]:
            cpu = round(max(0.0, busy - self._last[1]) / (clock - self._last[0]), 3)
        self._last = clock, busy
        memory = psutil.virtual_memory()
        disk = os.statvfs(self._disk)
        return {
            "cpu": cpu,
            "cpus": os.cpu_count() or 1,
            "memory_used": memory.total - memory.available,
            "memory_total": memory.total,
            "disk_free": disk.f_bavail * disk.f_frsize,
            "disk_total": disk.f_blocks * disk.f_frsize,
        }


# ---- processes -------------------------------------------------------------------------------------------------------

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SETTLED = 10.0  # seconds of age after which a process is past its fork and exec, and is not examined again
_MOST_ENVIRONMENT = 1 << 20


class _Stat(NamedTuple):
    """The fields of /proc/PID/stat that matter. own and waited: ticks of CPU, its own and of children it waited for."""

    zombie: bool
    parent: int
    own: int
    waited: int
    started: int  # ticks since boot
    memory: int  # bytes


@dataclass(slots=True)
class _Process:
    inode: int
    parent: int
    started: int
    settled: bool
    owner: Owner | None = None
    hidden: bool = False  # it has overwritten its environment
    own: int = 0
    waited: int = 0
    owed: int = 0  # ticks of children that are gone and not yet seen in `waited`


class _Processes:
    """The processes of this machine, and which of them are of jobs."""

    def __init__(self, only: Mapping[str, str]) -> None:
        self._only = {key.encode(): value.encode() for key, value in only.items()}
        self._known: dict[int, _Process] = {}
        self._owned: set[int] = set()
        self._watched: dict[tuple[int, int], Owner] = {}
        self._last: float | None = None
        self._gone: dict[int, _Process] = {}  # seen gone by a look between two samples

    def look(self, clock: float) -> None:
        """Learn which processes there are, between two samples."""
        self._gone.update(self._look(clock))

    def watch(self, pid: int, owner: Owner) -> None:
        stat = _stat(pid)
        if stat is None:
            return
        self._watched[pid, stat.started] = owner
        # Those that it has started already are to be looked at again.
        for process in self._known.values():
            process.settled = process.owner is not None

    def name(self, process: GpuProcess) -> None:
        """Say whose a GPU's process is."""
        pid = process["pid"]
        known = self._known.get(pid)
        if known is None:
            return
        if known.owner is not None:
            process["job"], process["attempt"] = known.owner
            process["foreign"] = False
            return
        process["foreign"] = None if known.hidden else True
        process["name"] = _read(pid, "comm").decode(errors="replace").strip() or None
        process["user"] = _user(pid)

    def read(self, clock: float) -> list[JobFigures]:
        """Figures of each job that has processes here. `clock`: seconds since boot."""
        gone, self._gone = {**self._gone, **self._look(clock)}, {}
        used: dict[Owner, int] = {}
        found: dict[Owner, JobFigures] = {}
        waited: dict[int, int] = {}
        # Parents first, so that a child reaped meanwhile is not counted both in its own figures and in its parent's.
        for pid in sorted(self._owned, key=lambda pid: (self._known[pid].started, pid)):
            process = self._known[pid]
            stat = _stat(pid)
            if stat is None or stat.started != process.started:
                gone[pid] = self._forget(pid)
                continue
            owner = process.owner
            assert owner is not None
            used[owner] = used.get(owner, 0) + max(0, stat.own - process.own)
            waited[pid] = max(0, stat.waited - process.waited)
            process.own, process.waited, process.parent = stat.own, stat.waited, stat.parent
            if stat.zombie:
                continue
            job = found.get(owner)
            if job is None:
                job = found[owner] = {
                    "job": owner.job,
                    "attempt": owner.attempt,
                    "cpu": None,
                    "memory": 0,
                    "processes": 0,
                    "pids": [],
                }
            job["memory"] += stat.memory
            job["processes"] += 1
            job["pids"].append(pid)
        self._settle_accounts(waited, gone, used)
        if self._last is not None and clock > self._last:
            for owner, job in found.items():
                job["cpu"] = round(used[owner] / _TICKS / (clock - self._last), 3)
        self._last = clock
        return [found[owner] for owner in sorted(found)]

    def _settle_accounts(self, waited: dict[int, int], gone: dict[int, _Process], used: dict[Owner, int]) -> None:
        """Count what children used that came and went between two samples.

        The kernel adds a child's time to its parent's `waited` when the parent reaps it. What was counted of that child
        while it was seen alive is taken off again; what is left is new.
        """
        owed: dict[int, int] = {}
        for process in gone.values():
            heir = process.parent
            while heir in gone:
                heir = gone[heir].parent
            if heir in waited:
                owed[heir] = owed.get(heir, 0) + process.own + process.waited
        for pid, ticks in waited.items():
            process = self._known[pid]
            assert process.owner is not None
            rest = ticks - owed.get(pid, 0) - process.owed
            used[process.owner] += max(0, rest)
            # A child read just before it was reaped shows in `waited` only next time. Carried once: a parent that
            # ignores SIGCHLD never gets its children's time.
            process.owed = min(owed.get(pid, 0), max(0, -rest))

    def _look(self, clock: float) -> dict[int, _Process]:
        """Bring the table up to date with one listing of /proc; returns those of jobs that are gone."""
        with os.scandir("/proc") as entries:
            listed = {int(entry.name): entry.inode() for entry in entries if entry.name.isdigit()}
        gone = {pid: self._forget(pid) for pid in self._known.keys() - listed.keys()}
        unowned = [pid for pid, inode in listed.items() if self._examine(pid, inode, clock, gone)]
        for pid in unowned:
            owner = self._inherited(self._known[pid].parent)
            if owner is not None:
                self._own(pid, owner)
        return {pid: process for pid, process in gone.items() if process.owner is not None}

    def _examine(self, pid: int, inode: int, clock: float, gone: dict[int, _Process]) -> bool:
        """Whether this is a new process, or a young one, that names no owner itself."""
        known = self._known.get(pid)
        if known is not None and known.inode == inode and known.settled:
            return False
        stat = _stat(pid)
        if known is not None and (stat is None or stat.started != known.started):
            gone[pid] = self._forget(pid)
            known = None
        if stat is None:
            return False
        if known is None:
            known = self._known[pid] = _Process(inode, stat.parent, stat.started, settled=False)
            if self._last is None:
                # Later on, what the last listing did not have has begun since, and all of its time counts.
                known.own, known.waited = stat.own, stat.waited
        elif known.owner is None:
            # What it used before it is known to be a job's is not counted.
            known.own, known.waited = stat.own, stat.waited
        known.inode, known.parent = inode, stat.parent
        if known.owner is None:
            known.settled = clock - stat.started / _TICKS >= _SETTLED
            owner = self._watched.get((pid, stat.started)) or self._marks(pid, known)
            if owner is not None:
                self._own(pid, owner)
        return known.owner is None

    def _own(self, pid: int, owner: Owner) -> None:
        self._known[pid].owner = owner
        self._known[pid].settled = True
        self._owned.add(pid)

    def _forget(self, pid: int) -> _Process:
        self._owned.discard(pid)
        process = self._known.pop(pid)
        self._watched.pop((pid, process.started), None)
        return process

    def _marks(self, pid: int, process: _Process) -> Owner | None:
        environment = _read(pid, "environ")
        process.hidden = bool(environment) and b"=" not in environment
        if b"GPUSCHED_JOB_ID=" not in environment:
            return None
        pairs = dict(part.split(b"=", 1) for part in environment.split(b"\0") if b"=" in part)
        if any(pairs.get(key) != value for key, value in self._only.items()):
            return None
        try:
            return Owner(int(pairs[b"GPUSCHED_JOB_ID"]), int(pairs[b"GPUSCHED_ATTEMPT"]))
        except (KeyError, ValueError):
            return None  # somebody else's use of the names

    def _inherited(self, parent: int) -> Owner | None:
        while (process := self._known.get(parent)) is not None:
            if process.owner is not None:
                return process.owner
            parent = process.parent
        return None


def _read(pid: int, name: str) -> bytes:
    """A file of /proc/PID; nothing when the process is gone or another user's."""
    try:
        descriptor = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
    try:
        return os.read(descriptor, _MOST_ENVIRONMENT)
    except (ProcessLookupError, PermissionError):
        return b""
    finally:
        os.close(descriptor)


def _stat(pid: int) -> _Stat | None:
    text = _read(pid, "stat")
    # The name, in brackets, may hold anything, brackets and spaces too.
    fields = text[text.rfind(b")") + 2 :].split()
    if len(fields) < 22:  # noqa: PLR2004 - up to the resident size
        return None
    own, waited = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return _Stat(fields[0] == b"Z", int(fields[1]), own, waited, int(fields[19]), int(fields[21]) * _PAGE)


def _user(pid: int) -> str | None:
    try:
        uid = Path(f"/proc/{pid}").stat().st_uid
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


# ---- GPUs ------------------------------------------------------------------------------------------------------------

_RETRY = 60.0  # seconds between attempts to open an NVML that failed


class _Gpus:
    """NVML, which may be missing, lose a GPU, lack a figure, be replaced under us, or hang."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._nvml: ModuleType | None = None
        self._reopen = 0.0
        self._why = ""
        self._faults: dict[str, list[int]] = {}
        self._gpus: dict[int, GpuFigures] = {}  # the last seen of each, for its name when it no longer tells
        self._thread: threading.Thread | None = None
        self._asked = 0.0

    def read(self, clock: float) -> tuple[list[GpuFigures], str | None]:
        """Figures of each GPU, and what is wrong, if anything."""
        if self._thread is not None and self._thread.is_alive():
            return self._silent(clock)
        answer: list[tuple[list[GpuFigures], str | None]] = []
        # A call into a broken driver may never return, and nothing can end it: so it is made where we can leave it.
        self._thread = threading.Thread(target=lambda: answer.append(self._read(clock)), name="nvml", daemon=True)
        self._asked = clock
        self._thread.start()
        self._thread.join(self._patience)
        return answer[0] if answer else self._silent(clock)

    def _silent(self, clock: float) -> tuple[list[GpuFigures], str | None]:
        waited = max(clock - self._asked, self._patience)
        return self._blanks(), f"NVML has not answered for {waited:.0f} s"

    def _blanks(self) -> list[GpuFigures]:
        """The GPUs that are known to be there, without figures."""
        return [self._blank(index) for index in sorted(self._gpus)]

    def _blank(self, index: int) -> GpuFigures:
        known = self._gpus.get(index)
        return {
            "index": index,
            "uuid": known["uuid"] if known else None,
            "name": known["name"] if known else None,
            "utilization": None,
            "memory_used": None,
            "memory_total": known["memory_total"] if known else None,
            "power": None,
            "temperature": None,
            "processes": None,
        }

    def _read(self, clock: float) -> tuple[list[GpuFigures], str | None]:
        self._faults = {}
        try:
            nvml = self._open(clock)
            if nvml is None:
                return self._blanks(), self._why
            count = nvml.nvmlDeviceGetCount()
            gpus = [self._gpu(nvml, index, clock) for index in range(count)]
        except Exception as error:  # noqa: BLE001 - a vendor's library, in any state: the sampler outlives it and tells
            self._close(clock, f"NVML: {error}")
            return self._blanks(), self._why
        self._gpus = {gpu["index"]: gpu for gpu in gpus}
        return gpus, "; ".join(f"GPU {_ranges(where)}: {what}" for what, where in self._faults.items()) or None

    def _open(self, clock: float) -> ModuleType | None:
        if self._nvml is not None and clock < self._reopen:
            return self._nvml
        if self._nvml is not None:
            self._close(clock, "")
        elif clock < self._reopen:
            return None
        self._reopen = clock + _RETRY
        try:
            import pynvml  # noqa: PLC0415 - a node without GPUs need not have it
        except ImportError:
            self._why = "nvidia-ml-py is not installed on this node"
            return None
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError_LibraryNotFound:
            self._why = "this node has no NVML (libnvidia-ml.so.1 is not found)"
            return None
        except pynvml.NVMLError as error:
            self._why = f"NVML: {error}"
            return None
        self._nvml, self._reopen = pynvml, float("inf")
        return self._nvml

    def _close(self, clock: float, why: str) -> None:
        """Begin anew at the next sample: a driver that was replaced answers only who opens it again."""
        nvml, self._nvml = self._nvml, None
        self._why, self._reopen = why, clock
        if nvml is not None:
            try:
                nvml.nvmlShutdown()
            except nvml.NVMLError:
                return  # it was not open any more, which is why we are here

    def _gpu(self, nvml: ModuleType, index: int, clock: float) -> GpuFigures:
        gpu = self._blank(index)
        handle = self._ask(index, "", nvml.nvmlDeviceGetHandleByIndex, index)
        if handle is None:
            # A GPU that was reset is found again by a fresh start only.
            self._reopen = min(self._reopen, clock + _RETRY)
            return gpu
        gpu["uuid"] = self._ask(index, "uuid", nvml.nvmlDeviceGetUUID, handle) or gpu["uuid"]
        gpu["name"] = self._ask(index, "name", nvml.nvmlDeviceGetName, handle) or gpu["name"]
        rates = self._ask(index, "utilization", nvml.nvmlDeviceGetUtilizationRates, handle)
        if rates is not None:
            gpu["utilization"] = rates.gpu / 100
        memory = self._ask(index, "memory", _memory, nvml, handle)
        if memory is not None:
            gpu["memory_used"], gpu["memory_total"] = memory
        milliwatts = self._ask(index, "power", nvml.nvmlDeviceGetPowerUsage, handle)
        gpu["power"] = None if milliwatts is None else milliwatts / 1000
        gpu["temperature"] = self._ask(
            index, "temperature", nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU
        )
        compute = self._ask(index, "compute processes", nvml.nvmlDeviceGetComputeRunningProcesses, handle)
        graphics = self._ask(index, "graphics processes", nvml.nvmlDeviceGetGraphicsRunningProcesses, handle)
        if compute is not None:
            merged: dict[int, GpuProcess] = {}
            for kind, processes in (("graphics", graphics or ()), ("compute", compute)):
                for process in processes:
                    merged[process.pid] = _process(process.pid, process.usedGpuMemory, kind)
            gpu["processes"] = [merged[pid] for pid in sorted(merged)]
        return gpu

    def _ask(self, index: int, what: str, call: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - NVML's
        """One figure, or None with the reason kept."""
        try:
            return call(*arguments)
        except Exception as error:
            if _driver_gone(error):
                raise
            fault = f"{what}: {error}" if what else str(error)
            self._faults.setdefault(fault, []).append(index)
            return None


def _driver_gone(error: Exception) -> bool:
    """Whether the whole NVML must be opened again (not initialized; driver not loaded), not one figure is missing."""
    return getattr(error, "value", None) in {1, 9}


def _memory(nvml: ModuleType, handle: object) -> tuple[int, int]:
    """Bytes used by processes, and all. The newer call leaves out what the driver keeps for itself."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except (nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NotSupported):
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return memory.used, memory.total


def _process(pid: int, memory: int | None, kind: str) -> GpuProcess:
    return {
        "pid": pid,
        "memory": memory,
        "type": kind,
        "job": None,
        "attempt": None,
        "foreign": None,
        "name": None,
        "user": None,
    }


def _ranges(numbers: list[int]) -> str:
    """0-3,7 for 0 1 2 3 7."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] + 1 == number:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)
