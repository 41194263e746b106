"""Ray Train inside a gpusched job: its workers run in the gang's own placement group, its retries are ours.

Ray Train reads RAY_TRAIN_CALLBACKS in the script's process and loads this class, so scripts run as they are. Every rank
gets this one file on its PYTHONPATH (nodes need nothing of ours installed), under the name `gpusched_train`. Whoever is
not in a gpusched job never loads it, and where the variables of one are missing it does nothing.

When the job is told to leave, its workers hear of it as of a node that goes away (`ray.train.get_preemption_info()`).
By itself SIGTERM would end the whole run at once; a script whose workers have asked for that information lives on
instead, saves, returns, and leaves with the code that means "start me again". What `ray.train.report` saves counts as
the job's checkpoints.

The hooks are Ray's private interface (ray.train.v2._internal), which is why Ray's minor version is pinned.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray._raylet import PlacementGroupID
from ray.exceptions import RayActorError
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import ControllerCallback, ReportCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.failure_handling.default import DefaultFailurePolicy
from ray.train.v2._internal.execution.train_fn_utils import DistributedTrainFnUtils
from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup
from ray.train.v2.api.preemption import PreemptionInfo
from ray.util.placement_group import PlacementGroup

NAMESPACE = "gpusched"
REQUEUE_ME = 75
STOP, CHECKPOINT, ASKS = "stop.json", "checkpoint.json", "asks"
"""Files of the control folder: gpusched's word to leave, the last checkpoint, and that the workers want to know."""
LOOK_EVERY = 0.5
"""Seconds between two looks for the word."""
# Ray Train's controller runs in another process, where this file is not to be found.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def fit(
    bundles: list[dict[str, float]], resources: dict[str, float], workers: int
) -> tuple[list[int], dict[str, float]]:
    """Which bundle each worker goes into, neighbours together, and what it takes there.

    A bundle's CPUs are shared among its workers where each asks for more than its share: the job's GPUs decide.

    Raises:
        ValueError: so many workers do not fit into the job.
    """
    per_bundle = [
        min(
            (int(bundle.get(key, 0) / amount) for key, amount in resources.items() if amount and key != "CPU"),
            default=0,
        )
        for bundle in bundles
    ]
    if not any(amount for key, amount in resources.items() if key != "CPU"):  # CPU workers: evenly
        per_bundle = [-(-workers // len(bundles))] * len(bundles)
    indices = [index for index, count in enumerate(per_bundle) for _ in range(count)][:workers]
    if len(indices) < workers:
        need = ", ".join(f"{amount:g} {key}" for key, amount in resources.items() if amount)
        raise ValueError(
            f"the script asks for {workers} workers with {need} each, and its gpusched job has room for {len(indices)}:"
            " raise num_nodes or resources.accelerators of the job, or lower num_workers of the script"
        )
    cpus = min(bundles[index].get("CPU", 0) / indices.count(index) for index in set(indices))
    return indices, {**resources, "CPU": int(min(resources.get("CPU", 0), cpus) * 1000) / 1000}


class _Reserved(DefaultPlacementGroupHandle):  # type: ignore[misc] # Ray ships no types
    """The gang's placement group, which is not Ray Train's to remove."""

    def shutdown(self) -> None:
        """Leave it: the gateway removes it with the attempt."""


def no_retries() -> None:
    """Every failure ends the run: whether there is another attempt, and where, is gpusched's to say."""
    decide = DefaultFailurePolicy.make_decision

    def final(policy: DefaultFailurePolicy, error: Exception) -> Any:  # noqa: ANN401 - Ray ships no types
        # The policy got a copy of its own of what the script configured.
        limits = policy.failure_config
        limits.max_failures = limits.max_preemption_failures = limits.controller_failure_limit = 0
        return decide(policy, error)

    DefaultFailurePolicy.make_decision = final


def _do_nothing(*_: Any) -> None:  # noqa: ANN401 - stands in for hooks of any kind
    pass


def _set_variables(variables: dict[str, str]) -> None:
    os.environ.update(variables)


def _tell_when_asked(name: str) -> None:
    """In a worker: the first `get_preemption_info` of the script tells rank 0 that it will act on the answer."""
    answer = DistributedTrainFnUtils.get_preemption_info
    told: list[bool] = []

    def asked(utils: DistributedTrainFnUtils) -> Any:  # noqa: ANN401 - Ray ships no types
        if not told:
            told.append(True)
            with contextlib.suppress(ValueError):
                runner = ray.get_actor(f"{name}:0:held", namespace=NAMESPACE)
                ray.get(runner.asks.remote())
        return answer(utils)

    DistributedTrainFnUtils.get_preemption_info = asked


def outlive_sigterm(control: Path) -> None:
    """In the script's process: if its workers ask for preemption, the run ends by itself, within the grace."""
    if threading.current_thread() is not threading.main_thread():
        return
    before = signal.getsignal(signal.SIGTERM)

    def told(number: int, frame: FrameType | None) -> None:
        if (control / ASKS).exists():
            atexit.register(_leave)
        elif callable(before):
            before(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, told)


def _leave() -> None:
    """A run that was told to leave and returned looks done; gpusched must hear that it is not."""
    if not hasattr(sys, "last_value"):  # else the script failed, which is an answer too
        ray.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(REQUEUE_ME)


def _pass_on(control: Path, workers: list[Any]) -> None:
    """In Ray Train's controller: once gpusched has left word, every worker gets it as a preemption of its node."""
    while not (control / STOP).exists():
        time.sleep(LOOK_EVERY)
    deadline = json.loads((control / STOP).read_bytes())["deadline"]
    ranks: dict[str, list[int]] = {}
    for worker in workers:
        ranks.setdefault(worker.metadata.node_id, []).append(worker.distributed_context.world_rank)
    for worker in workers:
        with contextlib.suppress(RayActorError):
            worker.actor.mark_preempt.remote(PreemptionInfo(int(deadline * 1000), ranks))


class ReservedGang(ControllerCallback, WorkerGroupCallback, ReportCallback):  # type: ignore[misc] # Ray ships no types
    """Created in the script's process, then sent to Ray Train's controller."""

    def __init__(self) -> None:
        env = os.environ
        self.group = env.get("GPUSCHED_PLACEMENT_GROUP", "")
        if not self.group:
            return
        if env.get("GPUSCHED_NODE_RANK", "0") != "0":
            # The job's command runs on each of its nodes; one of them leads the training over all of them.
            sys.stdout.write("gpusched: rank 0 of this job leads its Ray Train run; nothing to do on this node\n")
            sys.exit(0)
        self.attempt = int(env["GPUSCHED_JOB_ID"]), int(env["GPUSCHED_ATTEMPT"])
        self.name = f"gs:{env['GPUSCHED_TAG'].rpartition(':')[0]}"  # of the placement group, and of its Runners
        names = [name for name in env.get("GPUSCHED_VARIABLES", "").split(",") if name in env]
        self.variables = {name: env[name] for name in names}
        self.control = env.get("GPUSCHED_CONTROL_DIR", "")
        self.saved = 0
        if self.control:
            outlive_sigterm(Path(self.control))

    def after_controller_start(self, train_run_context: Any) -> None:  # noqa: ANN401, ARG002 - Ray ships no types
        """In the controller: take the gang's group for Ray Train's own, and hand failures to gpusched.

        Runs before the hooks of Ray Train's own callbacks, so that what it replaces there never ran.
        """
        if not self.group:
            return
        no_retries()
        # Ray Train's cleaner is detached, and would remove the gang's group when the controller dies.
        PlacementGroupCleanerCallback.after_controller_start = _do_nothing
        PlacementGroupCleanerCallback.after_worker_group_start = _do_nothing
        group = PlacementGroup(PlacementGroupID.from_hex(self.group))
        create_workers = WorkerGroup._create_workers  # noqa: SLF001 - there is no public way into a group that exists

        def reserved(_group: WorkerGroup, _config: Any, context: Any) -> _Reserved:  # noqa: ANN401 - Ray ships no types
            fit(group.bundle_specs, context.resources_per_worker, context.num_workers)
            self._take_resources(group)
            return _Reserved(group)

        def created(
            workers: WorkerGroup,
            count: int,
            into: PlacementGroup,
            resources: dict[str, float],
            indices: list[int] | None = None,
            **more: Any,  # noqa: ANN401 - whatever Ray Train passes on
        ) -> Any:  # noqa: ANN401 - Ray ships no types
            chosen, resources = fit(group.bundle_specs, resources, count) if indices is None else (indices, resources)
            return create_workers(workers, count, into, resources, chosen, **more)

        WorkerGroup._create_placement_group = reserved  # noqa: SLF001 - as above
        WorkerGroup._create_workers = created  # noqa: SLF001 - as above

    def _take_resources(self, group: PlacementGroup) -> None:
        """The Runners hold the bundles' GPUs for the script: it takes them for its workers."""
        calls = []
        for rank in range(group.bundle_count):
            with contextlib.suppress(ValueError):  # it has handed them over already
                runner = ray.get_actor(f"{self.name}:{rank}", namespace=NAMESPACE)
                calls.append(runner.release.remote(group))
        for call in calls:
            with contextlib.suppress(RayActorError):  # its end is the answer
                ray.get(call)

    def after_worker_group_start(self, worker_group: Any) -> None:  # noqa: ANN401 - Ray ships no types
        """The workers get the job's variables, and count to the job in its node's samples."""
        if not self.group:
            return
        worker_group.execute(_set_variables, self.variables)
        for worker in worker_group.get_workers():
            with contextlib.suppress(ValueError):  # a node without an agent has no samples
                agent = ray.get_actor(f"gs:agent:{worker.metadata.node_id}", namespace=NAMESPACE)
                agent.watch.remote(worker.metadata.pid, *self.attempt)
        if self.control:
            worker_group.execute(_tell_when_asked, self.name)
            workers = list(worker_group.get_workers())
            threading.Thread(target=_pass_on, args=(Path(self.control), workers), daemon=True).start()

    def after_report(self, training_report: Any, metrics: Any) -> None:  # noqa: ANN401, ARG002 - Ray ships no types
        """In the controller: what the workers saved is safe. Its number counts this attempt's checkpoints."""
        if self.group and self.control and training_report.checkpoint is not None:
            self.saved += 1
            draft = Path(self.control, f".{CHECKPOINT}")
            draft.write_text(json.dumps({"step": self.saved, "time": time.time()}))
            draft.replace(Path(self.control, CHECKPOINT))
