"""The driver on a Ray cluster: takes tasks over its line, has Ray run them, and sends back what was made.

Nodes need Ray and nothing of ours: this very package travels to them as a module of the runtime environment, and it is
found before one that is installed there, so that every run is made by the same code.
"""

from __future__ import annotations

import os
import queue
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import ray

from .case import Setup
from .child import listen
from .work import Bench, Made, Task

PACKAGE = Path(__file__).parents[2]
BEAT = 0.5
"""Seconds between two words to the other side."""

_bench: tuple[str, Bench] | None = None


def make(sweep: str, setup: list[ray.ObjectRef], task: Task) -> Made:
    """One run, on a node. The setup is fetched and its traces are read once a process, not once a run."""
    global _bench  # noqa: PLW0603 - what a worker process of Ray keeps from one task to the next
    if _bench is None or _bench[0] != sweep:
        _bench = sweep, Bench(ray.get(setup[0]))
    return _bench[1].make(task)


def connect(address: str) -> None:
    """Become a driver of the cluster; blocks, for minutes when nothing answers."""
    ray.init(
        address=address,
        log_to_driver=False,
        configure_logging=False,
        runtime_env={"py_modules": [str(PACKAGE)], "excludes": ["__pycache__"]},
    )


def serve(line: Connection, heard: queue.SimpleQueue[Any], setup: Setup) -> None:
    """Have every task run that is heard of, for ever."""
    shared = [ray.put(setup)]
    sweep = shared[0].hex()
    # A run changes nothing but its result, so Ray may make it again when a node dies.
    remote = ray.remote(num_cpus=1, max_retries=3)(make)
    running: dict[ray.ObjectRef, Task] = {}
    while True:
        line.send(("cpus", int(ray.cluster_resources().get("CPU", 0))))  # nodes come and go
        while not running or not heard.empty():
            task = heard.get()
            running[remote.remote(sweep, shared, task)] = task
        ray.wait(list(running), num_returns=1, timeout=BEAT)
        done, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
        for ref in done:
            line.send(("made", _result(ref, running.pop(ref))))


def _result(ref: ray.ObjectRef, task: Task) -> Made:
    try:
        made: Made = ray.get(ref)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return Made(task.number, task.key, failure=f"Ray could not run it: {reason}")
    return made


def main() -> None:
    """Connect, serve, and leave without waiting for threads that hang."""
    line = Connection(int(sys.argv[1]))
    heard = listen(line)
    address, setup = heard.get()
    try:
        connect(address)
    except Exception as error:  # noqa: BLE001 - whatever Ray raises is for the user to read, on the other side
        reason = str(error).strip().splitlines()
        line.send(("failed", reason[0] if reason else type(error).__name__))
        os._exit(1)
    serve(line, heard, setup)


if __name__ == "__main__":
    main()
