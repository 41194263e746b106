"""The actor on each node: samples what the node does, and reads what ended attempts left on its disk.

Travels by value like the Runner, together with `runner` and `agent`.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Any

from .agent import NodeSampler
from .runner import LOG, RESULT, exit_with_raylet, rank_folder, read_part

Part = tuple[bytes, int]
"""Some bytes of a log, and the size of the whole."""


class NodeAgent:
    """One a node, named `gs:agent:<node-id>`. A threaded actor: a slow disk delays no sample.

    Args:
        node: the node's lasting name.
    """

    def __init__(self, node: str) -> None:
        exit_with_raylet()
        # Several nodes of a test share one machine: a process counts where it was started for.
        self.sampler = NodeSampler(node, only={"GPUSCHED_NODE": node})
        self.lock = threading.Lock()

    def sample(self) -> dict[str, Any]:
        """What the node does now, as `NodeSampler.sample` says."""
        with self.lock:
            return dict(self.sampler.sample(time.time()))

    def watch(self, pid: int, job: int, attempt: int) -> None:
        """Count a process to an attempt though its environment does not say so: one of Ray's own workers."""
        with self.lock:
            self.sampler.watch(pid, job, attempt)

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
