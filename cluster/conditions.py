"""What a profile means for a job that starts: its course."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..jobs.job import Job
from .backend import Node
from .chance import exponential, uniform
from .course import Course
from .profile import Profile, Rates, at


class Conditions:
    """A profile on a cluster, under a seed."""

    def __init__(self, nodes: Sequence[Node], profile: Profile, seed: int) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._profile = profile
        self._seed = seed

    def work(self, job_id: int, duration: float) -> float:
        """Seconds of work at rate 1 that the job really needs."""
        overruns = self._profile.overruns
        if overruns.probability and uniform(self._seed, "overrun", job_id) < overruns.probability:
            return duration * overruns.factor
        return duration

    def course(
        self, job: Job, nodes: tuple[str, ...], now: float, work: float, model: str, *, restores: bool
    ) -> Course:
        """The attempt that starts now, with so many seconds of work left at rate 1."""
        profile, gpus = self._profile, job.shape.total_gpus
        rate = self.rate(job, nodes, model)
        begins = now + at(profile.start_up, gpus)
        works = begins + at(profile.restore, gpus) if restores else begins
        left = work if rate == 1 else work / rate
        saves = profile.checkpoints
        interval = None if saves.interval is None else at(saves.interval, gpus, None)
        course = Course(job, nodes, now, begins, works, left, rate, interval, at(saves.cost, gpus))
        self._may_fail(course, gpus)
        return course

    def rate(self, job: Job, nodes: tuple[str, ...], model: str) -> float:
        """Seconds of the job's duration that it does in a second there."""
        profile = self._profile
        rates = profile.rates_by_model.get(model, profile.rates) if model else profile.rates
        if rates == _PLAIN:
            return 1
        held = [self._nodes[name] for name in dict.fromkeys(nodes)]
        rate: float = 1
        if rates.by_type and job.shape.total_gpus:
            rate = min(rates.of_type(node.gpu_type) for node in held)
        if rates.by_nodes:
            rate *= at(rates.by_nodes, len(held), 1)
        if rates.by_racks:
            rate *= at(rates.by_racks, len({node.labels[profile.rack_label] for node in held}), 1)
        return rate

    def grace(self, job: Job) -> float:
        """Seconds from the order to stop until it is gone."""
        grace: float = at(self._profile.grace, job.shape.total_gpus)
        return grace

    @property
    def saves_before_stop(self) -> bool:
        """Whether a job that is told to stop takes a checkpoint first."""
        return self._profile.checkpoints.before_stop

    def _may_fail(self, course: Course, gpus: float) -> None:
        failures = self._profile.failures
        names: tuple[Any, ...] = (course.job.id, course.job.attempt)
        mtbf = None if failures.mtbf is None else at(failures.mtbf, gpus, None)
        span = course.ends - course.begins
        times = []
        if mtbf is not None:
            times.append(course.begins + exponential(mtbf, self._seed, "running", *names))
        probability = at(failures.probability, gpus)
        if probability and uniform(self._seed, "fails", *names) < probability:
            times.append(course.begins + round(uniform(self._seed, "when", *names) * span, 3))
        if times:
            course.fail(min(times))


_PLAIN = Rates()
