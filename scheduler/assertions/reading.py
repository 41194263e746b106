"""From an assertion file to a `Suite`: all of it, or every problem in it and in the files that it names."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any, TypeVar

from ...cluster.backend import Node
from ...cluster.inventory import read_cluster
from ...cluster.profile import ZERO, Profile, read_profile
from ...jobs.errors import Problem, SpecError
from ...jobs.spec.problems import Origin, Path
from ...jobs.traces.catalog import read_trace
from ...jobs.traces.trace import Trace
from ...jobs.yaml_faults import MAX_BYTES, MAX_PROBLEMS, YamlError, decode
from ...jobs.yaml_marks import documents
from ...policies.catalog import load
from ...policies.tree import Tree
from ..queues.admission import screen
from ..queues.reading import read_queues
from ..report import Window
from ..sweep.vary import GENERATED, generated, generator_options
from .entries import Entries, People
from .model import AssertionFile, TraceEntry
from .noting import Noting
from .suite import Suite

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What the command line says in place of the file; None and empty = as the file has it. Its paths are as given."""

    trace: str | None = None
    trace_form: Mapping[str, Any] | None = None
    cluster: str | None = None
    policies: tuple[str, ...] = ()
    queues: str | None = None
    profile: str | None = None
    start_up: float | None = None
    estimates: str | None = None
    seed: int | None = None
    seeds: int | None = None
    window: str | None = None


def read_suite(path: str, given: Overrides | None = None) -> Suite:
    """The assertions of a file, with what it names.

    Raises:
        SpecError: the file cannot be read, or anything in it or in what it names is wrong; every problem in file order.
    """
    try:
        with FilePath(path).open("rb") as source:
            text = source.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SpecError([Problem(path, 0, 0, "", f"cannot be read: {reason}", "check the path")]) from None
    problems: list[Problem] = []
    suite: Suite | None = None
    try:
        found = documents(decode(text, path), path, problems)
        roots = [root for root in found if root.kind != "scalar" or root.scalar is not None]
        if not roots:
            problems.append(
                Problem(path, 1, 1, "", "the file is empty", "write `assert:` and `- metric: ...` below it")
            )
        problems += [
            Problem(path, extra.line, extra.column, "", "a second document", "one file is one test")
            for extra in roots[1:]
        ]
        if roots:
            suite = _Reader(Noting(Origin(path, roots[0]), problems), given or Overrides()).read(roots[0].value())
    except YamlError as error:
        problems.append(error.problem)
    if problems:
        raise SpecError(sorted(problems, key=lambda one: (one.file != path, one.line, one.column))[:MAX_PROBLEMS])
    assert suite is not None, "a file without problems is a suite"
    return suite


class _Reader:
    """Reads one file. Goes on after a problem as far as the rest can be judged."""

    def __init__(self, noting: Noting, given: Overrides) -> None:
        self._noting = noting
        self._given = given
        self._written: set[str] = set()
        self._folder = os.path.dirname(noting.origin.file)  # noqa: PTH120 - Path would take `./` away

    def read(self, document: object) -> Suite | None:
        """The suite; None = there are problems."""
        top = self._noting.checked(AssertionFile, document, ())
        if not isinstance(document, Mapping):
            return None
        # A fault in one key of the file leaves the others to be judged.
        sound = top or self._noting.mended(AssertionFile, document) or AssertionFile.model_validate({})
        self._written = {key for key in document if document[key] is not None}
        names = self._policies(document, sound)
        nodes = self._file("cluster", sound.cluster, self._given.cluster, read_cluster, needed="NxG or a file of nodes")
        tree: Tree | None = self._file("queues", sound.queues, self._given.queues, read_queues)
        profile = self._profile(sound)
        traces = self._trace(document.get("trace"), nodes, sound)
        trace = traces(sound.seed) if traces is not None else None
        if tree is not None and trace is not None:
            self._noting.at(("queues",), lambda: screen(tree, trace.jobs))
        window = self._noting.at(("window",), lambda: Window.parse(self._given.window or sound.window)) or Window()
        people = None if trace is None else People.of(trace, tree)
        entries = Entries(self._noting, names, window=window, people=people, local=self._local_policy)
        assertions = entries.read(document.get("assert"))
        if self._noting.problems or nodes is None or traces is None or trace is None:
            return None
        seed = sound.seed if self._given.seed is None else self._given.seed
        compared = [bound.than for one in assertions for bound in one.bounds if bound.than]
        return Suite(
            file=self._noting.origin.file,
            trace=trace.name,
            traces=traces,
            nodes=nodes,
            policies=tuple(dict.fromkeys((*names, *compared))),
            assertions=assertions,
            seeds=tuple(range(seed, seed + (self._given.seeds or sound.seeds))),
            estimates=self._given.estimates or sound.estimates,
            profile=profile,
            tree=tree,
        )

    # What the assertions are about ------------------------------------------------------------------------------------

    def _policies(self, document: Mapping[str, object], top: AssertionFile) -> tuple[str, ...]:
        """The policies, each of which there is."""
        if self._given.policies:
            for name in self._given.policies:
                load(name)  # an unknown one is the command line's fault
            return self._given.policies
        if top.policies is None:
            if "policies" not in self._written:
                self._noting.add((), "says no policy", "write `policies: [easy, fair]`, or give --policy")
            return ()
        listed = isinstance(document.get("policies"), list)
        names = [self._local_policy(name) for name in top.policies]
        for number, name in enumerate(names):
            self._noting.at(("policies", number) if listed else ("policies",), lambda name=name: load(name))  # type: ignore[misc]  # a default binds the name now
        return tuple(names)

    def _local_policy(self, name: str) -> str:
        """A policy's name, with the path of its file from here."""
        source, colon, rest = name.partition(".py:")
        return f"{self._local(source)}{colon}{rest}" if colon else name

    def _local(self, path: str) -> str:
        """A path of the file, from here."""
        return os.path.join(self._folder, os.path.expanduser(path))  # noqa: PTH111, PTH118 - as above

    def _file(
        self, key: str, own: str | None, given: str | None, read: Callable[[str], T], *, needed: str = ""
    ) -> T | None:
        """What a key of the file names, or the option in its place."""
        if given is not None:
            return read(given)  # what is wrong with it is said as it is
        if own is None:
            if needed and key not in self._written:
                self._noting.add((), f"says no {key}", f"write `{key}: ...` ({needed}), or give it as an option")
            return None
        local = self._local(own)
        path = local if FilePath(local).exists() or not _is_words(own) else own
        return self._noting.at((key,), lambda: read(path))

    def _profile(self, top: AssertionFile) -> Profile | None:
        profile: Profile | None = self._file("profile", top.profile, self._given.profile, read_profile)
        start_up = top.start_up if self._given.start_up is None else self._given.start_up
        return profile if start_up is None else replace(profile or ZERO, start_up=start_up)

    def _trace(self, own: object, nodes: list[Node] | None, top: AssertionFile) -> Callable[[int], Trace] | None:
        """The trace of a seed."""
        at: Path = ("trace",)
        if self._given.trace is not None:
            source, form = self._given.trace, dict(self._given.trace_form or {})
        elif own is None:
            self._noting.add((), "says no trace", "write `trace: history.jsonl.gz`, or give TRACE")
            return None
        else:
            entry = self._noting.checked(
                TraceEntry, own if isinstance(own, Mapping) else {"file": own}, at if isinstance(own, Mapping) else ()
            )
            if entry is None:
                return None
            at = ("trace", "file") if isinstance(own, Mapping) else at
            source = entry.file if entry.file.startswith(GENERATED) else self._local(entry.file)
            form = {"format": entry.format, "columns": entry.columns, "gang": entry.gang, "resources": entry.resources}
        if source.startswith(GENERATED):
            if nodes is None:
                return None
            gpus = sum(node.gpus for node in nodes)
            made: dict[int, Trace] = {}

            def of_seed(seed: int) -> Trace:
                if seed not in made:
                    made[seed] = generated(generator_options(source, gpus, seed=seed), source)
                return made[seed]

            return of_seed if self._noting.at(at, lambda: of_seed(top.seed)) is not None else None
        if self._given.trace is not None:
            trace: Trace | None = read_trace(source, **form)
        else:
            trace = self._noting.at(at, lambda: read_trace(source, **form))
        return None if trace is None else lambda _seed: trace


def _is_words(text: str) -> bool:
    """Whether a cluster is said in words rather than in a file."""
    return "/" not in text and not text.endswith((".yaml", ".yml", ".json", ".csv", ".gz"))
