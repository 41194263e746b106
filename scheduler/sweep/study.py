"""A study: the plan of its runs, and having those made that are not there yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .case import Case, Keys, Setup
from .floors import Floor
from .grid import Point, trace_point
from .row import Row
from .spread import Makers, spread
from .vary import GENERATED
from .work import Made, Task

if TYPE_CHECKING:
    from .results import Results


@dataclass(frozen=True, slots=True)
class Study:
    """What is to be run.

    Attributes:
        setup: what all runs share.
        points: of the grid.
        seeds: at least one.
    """

    setup: Setup
    points: Sequence[Point]
    seeds: Sequence[int]

    def cases(self) -> list[Case]:
        """Every run once: trace by trace, so that a process rarely reads another one, policies innermost."""
        setup = self.setup
        return [
            Case(trace, cluster, point, seed, policy)
            for trace in setup.traces
            for cluster in setup.clusters
            for point in self.points
            for seed in (self.seeds if by_chance(setup, trace) else [None])
            for policy in setup.policies
        ]


def by_chance(setup: Setup, trace: str) -> list[str]:
    """What a seed changes in the runs of a trace, in words; nothing = every seed would give the same run."""
    found = []
    if setup.traces[trace].source.startswith(GENERATED):
        found.append("the jobs and arrivals of the made-up trace")
    if setup.bootstrap is not None:
        found.append("which blocks of arrivals are drawn")
    profile = setup.extras.get("profile")
    if profile is not None and profile.random:
        found.append("the failures of the profile")
    return found


@dataclass(slots=True)
class Outcome:
    """What a study gave.

    Attributes:
        rows: of the runs that were made or were there, in the order of the plan.
        failures: runs that failed, with why.
        found: runs that were there already.
    """

    rows: dict[Case, Row] = field(default_factory=dict)
    failures: list[tuple[Case, str]] = field(default_factory=list)
    found: int = 0


def conduct(
    study: Study,
    makers: Callable[[], Makers],
    *,
    results: Results | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Outcome:
    """Have every run made that is not there yet, and keep each as it comes.

    The outcome is the same whoever makes the runs and in whatever order they come.

    Args:
        study: the plan.
        makers: starts whoever makes runs; not called when all are there.
        results: where runs are kept and found; None = they are not kept.
        progress: told how many of the runs are there, of how many.

    Raises:
        GpuschedError: results cannot be written, or Ray is lost. What was made is kept.
    """
    cases = study.cases()
    named = Keys(study.setup)
    keys = {case: named.of(case) for case in cases}
    known = results.rows(keys.values()) if results is not None else {}
    if results is not None and study.setup.per_job:
        known = {key: row for key, row in known.items() if results.has_jobs(key)}
    missing = [case for case in cases if keys[case] not in known]
    outcome = Outcome(found=len(cases) - len(missing))
    rows = {case: known[keys[case]] for case in cases if keys[case] in known}
    failed: dict[Case, str] = {}
    if missing:
        pool = makers()
        try:
            floors, failed = _floors(study, missing, named, pool, results)
            tasks = [
                Task(i, keys[case], case, floors.get(_as_bounds(case)))
                for i, case in enumerate(missing)
                if case not in failed
            ]

            def take(made: Made) -> None:
                case = missing[made.number]
                if made.row is None:
                    failed[case] = made.failure
                else:
                    if results is not None:
                        results.keep(made.row, made.jobs)
                    rows[case] = made.row
                progress(len(rows) + len(failed), len(cases))

            spread(tasks, pool, take)
        finally:
            pool.close()
    if results is not None:
        results.merge()
    outcome.rows = {case: rows[case] for case in cases if case in rows}
    outcome.failures = [(case, failed[case]) for case in cases if case in failed]
    return outcome


def _as_bounds(case: Case) -> Case:
    """The lower bounds that hold for a run: those of its jobs as they arrive, on its cluster."""
    return Case(case.trace, case.cluster, trace_point(case.point), case.seed)


def _floors(
    study: Study, missing: Sequence[Case], named: Keys, pool: Makers, results: Results | None
) -> tuple[dict[Case, Floor], dict[Case, str]]:
    """Lower bounds for all runs that are to be made, each computed once; and the runs that have none, with why."""
    if not study.setup.bounds:
        return {}, {}
    wanted = list(dict.fromkeys(map(_as_bounds, missing)))
    found: dict[Case, Floor] = {}
    failed: dict[Case, str] = {}
    if results is not None:
        found = {case: kept for case in wanted if (kept := results.floor(named.of(case))) is not None}
    todo = [case for case in wanted if case not in found]

    def take(made: Made) -> None:
        case = todo[made.number]
        if made.floor is None:
            failed[case] = made.failure
            return
        found[case] = replace(made.floor, certificate="")  # it need not travel with every run
        if results is not None:
            results.keep_floor(made.key, made.floor)

    spread([Task(i, named.of(case), case) for i, case in enumerate(todo)], pool, take)
    return found, {case: f"lower bounds: {failed[_as_bounds(case)]}" for case in missing if _as_bounds(case) in failed}
