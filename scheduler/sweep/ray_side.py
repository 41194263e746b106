"""Our side of a Ray cluster that makes runs: keeps its driver, a process that may hang or die. Imports no Ray."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from ...cluster.ray import local
from ...cluster.ray.pipe import environment
from ...jobs.errors import GpuschedError, UnreachableError
from .case import Setup
from .child import Child
from .work import Made, Task

CONNECT_WITHIN = 90.0
"""Seconds from the start of a driver to its greeting; `ray.init` to a dead address hangs for minutes."""
SILENT = 90.0
"""Seconds without a word of the driver's after which it is taken to hang, and another one is started."""
TRIES = 3
"""Drivers in a row that may fail without having handed over a single run."""


class OnRay:
    """Makes runs on a Ray cluster, as many at a time as it has CPUs.

    Args:
        setup: what the runs share; it goes to the cluster once.
        address: `HOST:PORT`; `auto` = the cluster that runs on this machine, or that RAY_ADDRESS names.
        say: told in one line what a user must know, such as that the driver is started again.

    Raises:
        UnreachableError: nothing answers there.
    """

    def __init__(self, setup: Setup, address: str, say: Callable[[str], None] = lambda _line: None) -> None:
        found = local.find() if address == "auto" else address
        if found is None:
            raise UnreachableError("no Ray cluster runs on this machine", hint="give --ray-address HOST:PORT")
        if "://" not in found and not local.answers(found):
            raise UnreachableError(f"nothing answers at {found}", hint="--ray-address takes HOST:PORT of Ray's head")
        self.address = found
        self.cpus = 0
        self._setup = setup
        self._say = say
        self._tasks: dict[int, Task] = {}
        self._failures = 0
        self._child = self._started()

    def room(self) -> int:
        """See Makers: twice what the cluster can make at a time, so that no CPU waits for us."""
        return max(2 * self.cpus, 4) - len(self._tasks)

    def give(self, task: Task) -> None:
        """See Makers."""
        if not self._tasks:
            self._heard = time.monotonic()  # with nothing to do it is silent
        self._tasks[task.number] = task
        self._child.give(task)

    def receive(self, within: float) -> list[Made]:
        """See Makers.

        Raises:
            UnreachableError: one driver after the other failed.
        """
        try:
            if self._child.line.poll(within):
                return self._take(self._child.line.recv())
        except (EOFError, OSError):
            self._again("the driver on Ray ended")
            return []
        if time.monotonic() - self._heard > SILENT:
            self._again(f"Ray has not answered for {SILENT:g} s")
        return []

    def close(self) -> None:
        """See Makers. Ray ends what the driver had running when the driver is gone."""
        self._child.kill()

    def _take(self, message: tuple[str, object]) -> list[Made]:
        self._heard = time.monotonic()
        kind, value = message
        if kind == "cpus":
            assert isinstance(value, int)
            self.cpus = value
        if kind != "made":
            return []
        assert isinstance(value, Made)
        self._failures = 0
        # A driver that was given up on may have handed one over that its follower makes again.
        return [value] if self._tasks.pop(value.number, None) is not None else []

    def _started(self) -> Child:
        metadata = {"metadata": {"gpusched": "sweep"}}
        child = Child("on_ray", {**environment(""), "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(metadata)})
        self._heard = time.monotonic()
        try:
            child.line.send((self.address, self._setup))
            if not child.line.poll(CONNECT_WITHIN):
                why = f"it has not answered for {CONNECT_WITHIN:g} s"
            else:
                kind, value = child.line.recv()
                if kind == "cpus":
                    self.cpus = value
                    return child
                why = value
        except (EOFError, OSError):
            why = "the driver ended"
        except BaseException:  # a Ctrl-C while it connects
            child.kill()
            raise
        child.kill()
        raise UnreachableError(
            f"cannot use Ray at {self.address}: {why}", hint="is it up, and of the same Ray version?"
        )

    def _again(self, why: str) -> None:
        """Another driver takes up what this one had not handed over."""
        self._child.kill()
        self._failures += 1
        if self._failures >= TRIES:
            raise UnreachableError(f"{why}, {TRIES} times in a row", hint="the Ray cluster at " + self.address)
        self._say(f"{why}; starting another one")
        try:
            self._child = self._started()
        except GpuschedError as error:
            raise UnreachableError(f"{why}, and then {error.message}", hint=error.hint) from error
        for task in self._tasks.values():
            self._child.give(task)
