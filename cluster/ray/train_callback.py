"""Ray Train inside a gpusched job: its workers run in the gang's own placement group, its retries are ours.

Ray Train reads RAY_TRAIN_CALLBACKS in the script's process and loads this class, so scripts run as they are. Every rank
gets this one file on its PYTHONPATH (nodes need nothing of ours installed), under the name `gpusched_train`. Whoever is
not in a gpusched job never loads it, and where the variables of one are missing it does nothing.

The hooks are Ray's private interface (ray.train.v2._internal), which is why Ray's minor version is pinned.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import ray
from ray._raylet import PlacementGroupID
from ray.exceptions import RayActorError
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.failure_handling.default import DefaultFailurePolicy
from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup
from ray.util.placement_group import PlacementGroup

NAMESPACE = "gpusched"
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


class ReservedGang(ControllerCallback, WorkerGroupCallback):  # type: ignore[misc] # Ray ships no types
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
        names = [name for name in env.get("GPUSCHED_VARIABLES", "").split(",") if name in env]
        self.variables = {name: env[name] for name in names}

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
                runner = ray.get_actor(f"gs:{self.attempt[0]}:{self.attempt[1]}:{rank}", namespace=NAMESPACE)
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
