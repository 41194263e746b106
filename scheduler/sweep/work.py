"""Making one run, in whatever process: from the inputs to a row, and a failure as words rather than as an end."""

from __future__ import annotations

import tempfile
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...cluster.profile import ZERO, Profile
from ...jobs.errors import GpuschedError, TraceError
from ...jobs.traces.catalog import read_trace
from ...jobs.traces.trace import Trace
from ...policies.catalog import load
from ...policies.greedy import Policy
from ...policies.tree import Tree
from ..report import Window, summarize
from ..report.window import FULL
from ..simulate import simulate
from .case import Case, Extra, PolicyInput, Setup, TraceInput
from .floors import Floor, above, floor_of
from .grid import trace_point
from .row import Columns, Row, jobs_of, row_of
from .vary import at_load, at_rate, generated, generator_options, resampled


@dataclass(frozen=True, slots=True)
class Task:
    """A run to be made: its place in the plan, the key of its results, and the lower bounds that were asked for."""

    number: int
    key: str
    case: Case
    floor: Floor | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a task: a row (and jobs, if they were asked for), or why there is none.

    Attributes:
        failure: why it failed, for people; empty = it did not.
        floor: of a task for lower bounds.
    """

    number: int
    key: str
    row: Row | None = None
    jobs: Columns | None = None
    failure: str = ""
    floor: Floor | None = None


class Bench:
    """Makes runs one after the other; keeps the trace of the last ones, because neighbours in a plan share it."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        queues, window = setup.extras.get("queues"), setup.extras.get("window")
        self._tree = None if queues is None else _tree_of(queues)
        self._window: Window = FULL if window is None else window.value
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._read: dict[str, Trace] = {}
        self._varied: tuple[tuple[Any, ...], Trace] | None = None

    def make(self, task: Task) -> Made:
        """One run. Never raises: a run that fails must not take the others down."""
        try:
            return self._make(task)
        except GpuschedError as error:
            return Made(
                task.number, task.key, failure=f"{error.message} ({error.hint})" if error.hint else error.message
            )
        except MemoryError:
            return Made(task.number, task.key, failure="out of memory (run fewer at a time with --processes)")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this run's and is reported with its name
            at = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(at.filename).name}, line {at.lineno}"
            return Made(task.number, task.key, failure=f"{type(error).__name__}: {error} ({where})")

    def _make(self, task: Task) -> Made:
        setup, case = self._setup, task.case
        nodes = setup.clusters[case.cluster]
        trace = self._trace(case)
        profile = self._profile(case)
        if not case.policy:
            return Made(task.number, task.key, floor=floor_of(trace, nodes, profile))
        run = simulate(
            trace,
            nodes,
            self._policy(case),
            estimates=case.at("estimates", setup.estimates),
            profile=profile,
            seed=case.seed or 0,
            tree=self._tree,
        )
        summary = summarize(run, self._window)
        if task.floor is not None:
            summary = above(summary, run, task.floor, profile)
        jobs = jobs_of(run) if setup.per_job else None
        return Made(task.number, task.key, row_of(task.key, case, setup, summary), jobs)

    def _profile(self, case: Case) -> Profile:
        given = self._setup.extras.get("profile")
        profile: Profile = ZERO if given is None else given.value
        start_up = case.at("start_up", self._setup.start_up)
        return profile if start_up is None else replace(profile, start_up=start_up)

    def _trace(self, case: Case) -> Trace:
        """The trace as this run replays it."""
        given = self._setup.traces[case.trace]
        named = trace_point(case.point)
        known = (case.trace, case.cluster, named, case.seed)
        if self._varied is None or self._varied[0] != known:
            gpus = sum(node.gpus for node in self._setup.clusters[case.cluster])
            trace = self._made(given, case, gpus) if not given.data else self.read(given.label)
            if self._setup.bootstrap is not None:
                trace = resampled(trace, self._setup.bootstrap, case.seed or 0)
            if given.data and (wanted := case.at("load")) is not None:
                trace = at_load(trace, gpus, wanted)
            trace = at_rate(trace, case.at("rate", 1.0))
            self._varied = (known, trace)
        return self._varied[1]

    def _made(self, given: TraceInput, case: Case, gpus: int) -> Trace:
        more = [(key.partition(".")[2], str(value)) for key, value in case.point if key.startswith("generate.")]
        options = generator_options(given.source, gpus, seed=case.seed or 0, load=case.at("load"), more=more)
        return generated(options, given.label)

    def read(self, label: str) -> Trace:
        """A trace that is a file's, as it is.

        Raises:
            TraceError: it cannot be read; the message names the file as the user did.
        """
        if label not in self._read:
            self._read = {}  # two large traces at a time would be one too many
            given = self._setup.traces[label]
            path = self._scratch(
                "trace", "standard-input" if given.source == "-" else Path(given.source).name, given.data
            )
            try:
                trace = read_trace(path, **dict(given.form))
            except TraceError as error:
                raise TraceError(error.message.replace(str(path), given.source), hint=error.hint) from error
            finally:
                path.unlink()
            self._read[label] = replace(trace, name=label)
        return self._read[label]

    def _policy(self, case: Case) -> Policy:
        given = self._setup.policies[case.policy]
        options = [(key.partition(".")[2], value) for key, value in case.point if key.startswith("policy.")]
        return load(with_options(self._name(given), options))

    def _name(self, given: PolicyInput) -> str:
        """The policy's name for `load`; a user's own file is the one that the sweep began with."""
        source, colon, attribute = given.asked.partition(".py:")
        if not (given.code and colon):
            return given.asked
        path = self._scratch(f"policy-{given.asked}".replace("/", "_"), f"{Path(source).name}.py", given.code)
        return f"{path}:{attribute}"

    def _scratch(self, folder: str, name: str, data: bytes) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="gpusched-sweep-")
        path = Path(self._folder.name) / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return path


def _tree_of(queues: Extra) -> Tree:
    from ..queues.reading import parse_queues  # noqa: PLC0415 - brings pydantic, and few ask for queues

    return parse_queues(queues.value, file=queues.name)


def with_options(name: str, options: list[tuple[str, Any]]) -> str:
    """A policy's name with options, as the catalogue takes it: `name?key=value&key=value`."""
    if not options:
        return name
    return name + ("&" if "?" in name else "?") + "&".join(f"{key}={value}" for key, value in options)
