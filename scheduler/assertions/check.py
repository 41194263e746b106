"""Run a suite: each policy once a seed, each assertion on each of its policies."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ...cluster.profile import ZERO
from ...jobs.errors import GpuschedError
from ...policies.catalog import load
from ..report import Run, Summary, WindowError
from ..simulate import simulate
from ..sweep.floors import above, floor_of
from .metrics import Measure
from .scene import Found, Scene, Subset
from .suite import Assertion, Bound, Suite


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one assertion under one policy, in the seed where it came out worst.

    Attributes:
        assertion, policy: which.
        bound: the one that it came closest to, or missed furthest; its number is `limit`.
        value: what was measured; None = nothing could be. limit: what it was held against; of a comparison computed
            from `other`, the value under the other policy.
        passed: whether it holds, in every seed.
        margin: how much better than the limit, in the metric's unit, below 0 where it fails; None = not known.
        who: the job (or user, or queue) that the value is about. why: why there is no value.
        seed: of the run; failed: in how many seeds it fails.
    """

    assertion: Assertion
    policy: str
    bound: Bound
    value: float | None
    limit: float | None
    passed: bool
    margin: float | None
    who: str = ""
    why: str = ""
    other: float | None = None
    seed: int = 0
    failed: int = 0
    seeds: int = 1

    @property
    def share(self) -> float | None:
        """The margin as a share of the limit."""
        return self.margin / self.limit if self.margin is not None and self.limit else None


def check(suite: Suite, progress: Callable[[int, int], None] | None = None) -> list[Outcome]:
    """The outcomes, in the order of the file, each assertion under each of its policies.

    A policy that fails in a run fails its own assertions, with what it said; the others go on.
    """
    worst: dict[tuple[int, str], Outcome] = {}
    total = len(suite.seeds) * len(suite.policies)
    for count, seed in enumerate(suite.seeds):
        runs: dict[str, Run | str] = {}
        for number, name in enumerate(suite.policies):
            runs[name] = _run(suite, name, seed)
            if progress is not None:
                progress(count * len(suite.policies) + number + 1, total)
        scenes = _Scenes(suite, seed, runs)
        for number, assertion in enumerate(suite.assertions):
            for policy in assertion.policies:
                key = (number, policy)
                found = _judge(assertion, policy, scenes, seed)
                worst[key] = _worse(worst.get(key), found)
    return list(worst.values())


def _run(suite: Suite, name: str, seed: int) -> Run | str:
    """A run, or what went wrong."""
    try:
        return simulate(
            suite.traces(seed),
            suite.nodes,
            load(name),
            estimates=suite.estimates,
            profile=suite.profile,
            seed=seed,
            tree=suite.tree,
        )
    except GpuschedError as error:
        return f"{error.message}{f' ({error.hint})' if error.hint else ''}"


class _Scenes:
    """The runs of one seed, each measured once a window."""

    def __init__(self, suite: Suite, seed: int, runs: Mapping[str, Run | str]) -> None:
        self._suite = suite
        self._seed = seed
        self._runs = runs
        self._made: dict[tuple[str, str], Scene] = {}
        self._floor: Callable[[Summary, Run], Summary] | None = None

    def subset(self, policy: str, assertion: Assertion) -> Subset | str:
        """The jobs that an assertion is about, or why there are none."""
        run = self._runs[policy]
        if isinstance(run, str):
            return run
        window = assertion.window
        key = (policy, window.text)
        if key not in self._made:
            try:
                self._made[key] = Scene(run, window, self._bounded)
            except WindowError as error:
                return f"{error.message} ({error.hint})" if error.hint else error.message
        return Subset.of(self._made[key], assertion.selection.fits)

    def _bounded(self, summary: Summary, run: Run) -> Summary:
        """A summary with lower bounds, which are the same for all policies."""
        profile = self._suite.profile or ZERO
        if self._floor is None:
            floor = floor_of(self._suite.traces(self._seed), self._suite.nodes, profile)
            self._floor = lambda summary, run: above(summary, run, floor, profile)
        return self._floor(summary, run)


def _judge(assertion: Assertion, policy: str, scenes: _Scenes, seed: int) -> Outcome:
    """An assertion in one seed: the outcome of its tightest bound."""
    found = _measured(assertion, policy, scenes)
    blank = Outcome(assertion, policy, assertion.bounds[0], found.value, None, passed=False, margin=None, seed=seed)
    if found.value is None:
        return replace(blank, why=found.who)
    made = []
    for bound in assertion.bounds:
        outcome = replace(blank, bound=bound, who=found.who)
        other = _measured(assertion, bound.than, scenes) if bound.than else None
        if other is not None and other.value is None:
            made.append(replace(outcome, why=f"under {bound.than}: {other.who}"))
        else:
            made.append(_held(outcome, found.value, None if other is None else other.value))
    return min(made, key=_rank)


def _measured(assertion: Assertion, policy: str, scenes: _Scenes) -> Found:
    subset = scenes.subset(policy, assertion)
    return Found(None, subset) if isinstance(subset, str) else assertion.measure.find(subset)


def _held(outcome: Outcome, value: float, other: float | None) -> Outcome:
    """Whether a value keeps to a bound, which may follow from another policy's value."""
    bound = outcome.bound
    if other is None:
        limit, upper = bound.number, bound.word in {"below", "at_most"}
    else:
        limit, upper = _against(outcome.assertion.measure, bound, other)
    margin = limit - value if upper else value - limit
    # Times are sums of floats: what should be equal may miss it by a rounding error.
    same = math.isclose(limit, value, rel_tol=1e-12, abs_tol=1e-12)
    passed = bound.word not in {"below", "above"} if same else margin > 0
    return replace(outcome, limit=limit, other=other, passed=passed, margin=0.0 if same else margin)


def _against(measure: Measure, bound: Bound, other: float) -> tuple[float, bool]:
    """The limit that follows from another policy's value, and whether it is an upper one."""
    lower_is_better = measure.better < 0
    worse = bound.word == "at_most_worse"
    step = bound.number if worse == lower_is_better else -bound.number
    return other * (1 + step), lower_is_better


def _worse(one: Outcome | None, other: Outcome) -> Outcome:
    """The worse of two seeds, which tells in how many it fails."""
    if one is None:
        return replace(other, failed=int(not other.passed), seeds=1)
    failed = one.failed + (not other.passed)
    kept = min(one, other, key=_rank)
    return replace(kept, failed=failed, seeds=one.seeds + 1)


def _rank(outcome: Outcome) -> tuple[bool, float]:
    """Failed ones first, those without a value before all, then by margin."""
    if outcome.margin is None:
        return outcome.passed, -math.inf
    return outcome.passed, outcome.margin / (abs(outcome.limit or 0) or 1)
