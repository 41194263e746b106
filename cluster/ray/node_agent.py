"""The actor on each node: samples what the node does, says what is wrong with it, reads what ended attempts left.

Travels by value like the Runner, together with `runner`, `agent`, `node_health`, `gpu_watch` and `gpu_use`.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from .agent import NodeSampler
from .gpu_use import Baselines, born, dirt, kill, left_by, tagged
from .gpu_watch import GpuWatch, boot_identity
from .node_health import NodeHealth
from .runner import LOG, RESULT, TAG, exit_with_raylet, rank_folder, read_part, scratch_root

Part = tuple[bytes, int]
"""Some bytes of a log, and the size of the whole."""


class NodeAgent:
    """One a node, named `gs:agent:<node-id>`. A threaded actor: a slow disk delays no sample.

    Args:
        node: the node's lasting name.
        scratch: the scratch directory, as `rank_folder` takes it.
        limits: of the health checks, as `cluster.health.HealthLimits.plain` gives them.
    """

    def __init__(self, node: str, scratch: str, limits: dict[str, Any]) -> None:
        exit_with_raylet()
        # Several nodes of a test share one machine: a process counts where it was started for.
        self.sampler = NodeSampler(node, only={"GPUSCHED_NODE": node})
        self.lock = threading.Lock()
        self.limits = limits
        root = scratch_root(scratch)
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gpusched"
        self.health = NodeHealth([root, cache], limits)
        self.baselines = Baselines()
        self.seen: set[int] = set()  # GPUs that have told their figures
        self.offered = offered()
        self.watcher = GpuWatch(root / f"health-{node}.json", boot_identity())
        self.watcher.start()
        self.stuck_file = root / f"stuck-{node}.json"
        self.stuck: dict[str, list[tuple[int, int]]] = self._recall_stuck()

    # ---- samples

    def sample(self) -> dict[str, Any]:
        """What the node does now, as `NodeSampler.sample` says; with `health` if anything is wrong, see `_health`."""
        with self.lock:
            sample = self.sampler.sample(time.time())
            health = self._health([dict(gpu) for gpu in sample["gpus"]])
        return {**sample, "health": health} if health else dict(sample)

    def _health(self, gpus: list[dict[str, Any]]) -> dict[str, Any]:
        """`node`: what is wrong with the machine; `gpus`: by index what is broken; `dirt`: by index what is on it.

        Something on a GPU is wrong only where no attempt runs, which is not known here. `offered`: the indices are
        those of GPUs that the raylet may use; else nobody has kept it from any.
        """
        broken = {**self._stuck_on(), **self.watcher.faults()}
        soiled = {gpu["index"]: text for gpu in gpus if (text := self._dirt(gpu))}
        self.baselines.learn(gpus)
        self.seen.update(gpu["index"] for gpu in gpus if gpu["memory_used"] is not None)
        if self.offered is not None:
            broken = {index: why for index, why in broken.items() if index in self.offered}
            soiled = {index: why for index, why in soiled.items() if index in self.offered}
        wrong = {"node": self.health.check(time.monotonic()), "gpus": broken, "dirt": soiled}
        return {**wrong, "offered": self.offered is not None} if any(wrong.values()) else {}

    def _dirt(self, gpu: dict[str, Any]) -> str:
        if gpu["index"] in self.seen and gpu["memory_used"] is None and gpu["processes"] is None:
            return "NVML tells nothing of it any more"
        spare: int = self.limits["spare"]
        return dirt(gpu, spare, self.baselines.of(gpu["index"], spare)) if spare else ""

    def watch(self, pid: int, job: int, attempt: int) -> None:
        """Count a process to an attempt though its environment does not say so: one of Ray's own workers."""
        with self.lock:
            self.sampler.watch(pid, job, attempt)

    # ---- health

    def clock(self) -> float:
        """This machine's time: UTC seconds."""
        return time.time()

    def configure(self, limits: dict[str, Any]) -> None:
        """Other limits from now on."""
        self.limits = limits
        self.health.use(limits)

    def forgive(self) -> None:
        """An administrator trusts the GPUs again: what was remembered of them is forgotten. What shows still counts."""
        self.watcher.forgive()
        with self.lock:
            self.stuck = {}
            self._keep_stuck()

    def look(self, owner: str, attempt: tuple[int, int], gpus: list[int], shared: list[int]) -> dict[str, Any]:
        """Whether an attempt that ended is gone from here. What still runs of it is killed on sight.

        Args:
            owner: the control plane.
            attempt: job and number.
            gpus: the indices that it had on this node.
            shared: those of them that other attempts have a part of, so that only its own processes matter.

        Returns:
            `alive`: processes that carry its mark; `dirt`: by index, what is on a GPU; `broken`: by index, what is
            wrong with it; `told`: the GPUs of which it is known what is on them.
        """
        alive = tagged(TAG, f"{owner}:{attempt[0]}:{attempt[1]}:")
        kill(alive)
        with self.lock:
            figures = {gpu["index"]: dict(gpu) for gpu in self.sampler.gpus() if gpu["index"] in gpus} if gpus else {}
            soiled = {
                # Where nobody looks at idle GPUs, others may be on them on purpose.
                index: left_by(gpu, attempt) if index in shared or not self.limits["spare"] else self._dirt(gpu)
                for index, gpu in figures.items()
            }
            broken = {index: why for index, why in self.watcher.faults().items() if index in gpus}
        return {
            "alive": alive,
            "dirt": {index: text for index, text in soiled.items() if text},
            "broken": broken,
            "told": [index for index, gpu in figures.items() if gpu["processes"] is not None],
        }

    def hold(self, gpus: list[int], pids: list[int]) -> None:
        """These processes cannot be killed, and nobody can tell that they are not on these GPUs."""
        held = [(pid, began) for pid in pids if (began := born(pid))]
        with self.lock:
            for gpu in gpus:
                self.stuck[str(gpu)] = held
            self._keep_stuck()

    def _stuck_on(self) -> dict[int, str]:
        found = {}
        for gpu, processes in self.stuck.items():
            left = [pid for pid, began in processes if born(pid) == began]
            if left:
                found[int(gpu)] = f"process {', '.join(map(str, left))} of an ended attempt cannot be killed"
        if len(found) < len(self.stuck):
            self.stuck = {gpu: processes for gpu, processes in self.stuck.items() if int(gpu) in found}
            self._keep_stuck()
        return found

    def _recall_stuck(self) -> dict[str, list[tuple[int, int]]]:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self.stuck_file.read_bytes())
            return {gpu: [(pid, began) for pid, began in processes] for gpu, processes in found.items()}
        return {}

    def _keep_stuck(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: it is remembered in memory
            self.stuck_file.write_text(json.dumps(self.stuck))

    # ---- what attempts left

    def read_log(self, home: tuple[str, str], rank: tuple[int, int, int], part: tuple[int, int]) -> Part | None:
        """A part of a rank's output and its size; None = there is no such log here.

        Args:
            home: the scratch directory and the control plane, as `rank_folder` takes them.
            rank: job, attempt, rank.
            part: offset and limit, as `read_part` takes them.
        """
        try:
            return read_part(rank_folder(*home, rank[:2], rank[2]) / LOG, *part)
        except FileNotFoundError:
            return None

    def outcome(self, home: tuple[str, str], attempt: tuple[int, int]) -> dict[int, dict[str, Any]]:
        """Results of the ranks of an attempt that ended on this node, by rank."""
        found = {}
        for folder in rank_folder(*home, attempt, 0).parent.glob("rank-*"):
            with contextlib.suppress(FileNotFoundError):
                found[int(folder.name.removeprefix("rank-"))] = json.loads((folder / RESULT).read_bytes())
        return found


def offered() -> set[int] | None:
    """The GPUs that this node's raylet was kept to by CUDA_VISIBLE_DEVICES; None = to none in particular."""
    raylet = int(os.environ.get("RAY_RAYLET_PID") or os.getppid())
    try:
        words = Path(f"/proc/{raylet}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    value = next((word.partition(b"=")[2] for word in words if word.startswith(b"CUDA_VISIBLE_DEVICES=")), b"")
    parts = value.decode(errors="replace").split(",")
    return {int(part) for part in parts} if all(part.strip().isdigit() for part in parts) else None
