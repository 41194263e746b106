"""Reading a profile: YAML of a few keys, each checked, each problem with its line and how to mend it.

Several numbers may be given by the size of a gang, as steps: `start_up: {1: 20s, 64: 90s}` is 20 s from 1 GPU on and
90 s from 64 on. docs/profile.md documents every key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from ..jobs.errors import Problem, SpecError
from ..jobs.units import UnitError
from ..jobs.yaml_faults import MAX_BYTES, YamlError, decode
from ..jobs.yaml_marks import Node as Value
from ..jobs.yaml_marks import documents
from . import profile_values as values
from .profile import (
    Checkpoints,
    Failures,
    NodeLife,
    Overruns,
    Place,
    Profile,
    Rates,
    Sized,
    Steps,
    at,
)

KEYS: Mapping[str, tuple[str, ...]] = {
    "": (
        "description",
        "start_up",
        "restore",
        "grace",
        "checkpoint",
        "rate",
        "failures",
        "overruns",
        "limits",
    ),
    "checkpoint": ("interval", "cost", "before_stop"),
    "rate": ("by_type", "by_nodes", "by_racks", "rack_label", "models"),
    "rate.models.*": ("by_type", "by_nodes", "by_racks"),
    "failures": ("nodes", "jobs", "retries"),
    "failures.nodes": ("mtbf", "repair", "by_type"),
    "failures.nodes.by_type.*": ("mtbf", "repair"),
    "failures.jobs": ("mtbf", "probability"),
    "overruns": ("probability", "factor"),
}
"""Every key that may be written, by the mapping that it stands in; `*` is a name of the user's."""

_ELSEWHERE = {
    "startup": "start_up",
    "start_up_latency": "start_up",
    "startup_latency": "start_up",
    "restart": "restore",
    "restart_cost": "restore",
    "checkpoints": "checkpoint",
    "checkpoint_cost": "checkpoint.cost",
    "checkpoint_interval": "checkpoint.interval",
    "on_preemption": "before_stop",
    "grace_period": "grace",
    "rates": "rate",
    "speed": "rate.by_type",
    "speedup": "rate.by_type",
    "throughput": "rate.by_type",
    "locality": "rate.by_nodes",
    "failure": "failures",
    "mttf": "mtbf",
    "mttr": "repair",
    "repair_time": "repair",
    "retry": "retries",
    "rate_limit": "limits",
}
"""What others call our keys, where no likeness of spelling would tell."""


_Read = TypeVar("_Read")
_Unset = TypeVar("_Unset", int, None)
_Number = Callable[[Value], float]


def read(file: str) -> Profile:
    """The profile in `file`.

    Raises:
        SpecError: with every problem, in file order.
    """
    try:
        with Path(file).open("rb") as source:
            text = source.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SpecError([Problem(file, 0, 0, "", f"cannot be read: {reason}")]) from None
    return read_text(text, file)


def read_text(text: str | bytes, file: str = "profile") -> Profile:
    """The profile in a YAML text; an empty one costs nothing. `file` stands in messages.

    Raises:
        SpecError: with every problem, in file order.
    """
    reader = _Reader(file)
    profile = Profile()
    try:
        roots = list(documents(decode(text, file), file, reader.problems))
        if len(roots) > 1:
            message = "begins a second document"
            reader.problems.append(Problem(file, roots[1].line, 1, "", message, "a profile is one document"))
        elif roots and not _empty(roots[0]):
            profile = reader.profile(roots[0])
    except YamlError as error:
        reader.problems.append(error.problem)
    if reader.problems:
        raise SpecError(sorted(reader.problems, key=lambda problem: (problem.line, problem.column)))
    return profile


def _empty(value: Value) -> bool:
    return value.kind == "scalar" and value.scalar is None


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


class _Reader:
    """One file: the problems found so far, and where keys stand."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.places: dict[str, Place] = {}

    # Sections ---------------------------------------------------------------------------------------------------

    def profile(self, root: Value) -> Profile:
        """The whole file."""
        part = self._section(root, "", "")
        rate = self._sub(part, "rate")
        rates = self._rates(rate, "rate", Rates())
        profile = Profile(
            start_up=self._sized(part, "", "start_up", values.duration, 0),
            restore=self._sized(part, "", "restore", values.duration, 0),
            grace=self._sized(part, "", "grace", values.duration, 0),
            checkpoints=self._checkpoints(part),
            rates=rates,
            rates_by_model={
                name: self._rates(
                    self._section(value, f"rate.models.{name}", "rate.models.*"), f"rate.models.{name}", rates
                )
                for name, value in self._named(rate, "rate", "models").items()
            },
            rack_label=self._take(rate, "rate", "rack_label", values.text, "rack"),
            failures=self._failures(part),
            overruns=self._overruns(part),
            estimates_are_limits=self._take(part, "", "limits", values.limits, default=False),
            description=self._take(part, "", "description", values.text, ""),
            places=self.places,
        )
        self._check_saving(part, profile)
        return profile

    def _checkpoints(self, part: dict[str, Value]) -> Checkpoints:
        if "checkpoint" not in part:
            return Checkpoints()
        inside = self._sub(part, "checkpoint")
        if "interval" not in inside and part["checkpoint"].kind == "map":
            hint = "add `interval: 30m`, or `interval: never`; without `checkpoint` no work is ever lost"
            self._wrong(part["checkpoint"], "checkpoint", "does not say how often", hint)
        return Checkpoints(
            self._sized(inside, "checkpoint", "interval", values.interval, None),
            self._sized(inside, "checkpoint", "cost", values.duration, 0),
            self._take(inside, "checkpoint", "before_stop", values.truth, default=False),
        )

    def _rates(self, part: dict[str, Value], path: str, otherwise: Rates) -> Rates:
        found = otherwise
        if "by_type" in part:
            named = self._named(part, path, "by_type")
            found = replace(
                found,
                by_type={
                    kind: self._read(f"{path}.by_type.{kind}", value, values.rate, 1.0) for kind, value in named.items()
                },
            )
        if "by_nodes" in part:
            found = replace(found, by_nodes=self._spread(part["by_nodes"], f"{path}.by_nodes"))
        if "by_racks" in part:
            found = replace(found, by_racks=self._spread(part["by_racks"], f"{path}.by_racks"))
        return found

    def _spread(self, value: Value, path: str) -> Steps:
        steps = self._steps(value, path, values.rate) if value.kind == "map" else None
        if steps is None:
            self._wrong(
                value, path, f"is no mapping of numbers to factors, but {values.shown(value)}", "write `{2: 0.9}`"
            )
            return ()
        return steps

    def _failures(self, part: dict[str, Value]) -> Failures:
        inside = self._sub(part, "failures")
        nodes = self._sub(inside, "nodes", "failures")
        jobs = self._sub(inside, "jobs", "failures")
        path = "failures.nodes"
        life = self._life(nodes, path, NodeLife())
        types = self._named(nodes, path, "by_type")
        lives = {
            kind: self._life(
                self._section(value, f"{path}.by_type.{kind}", f"{path}.by_type.*"), f"{path}.by_type.{kind}", life
            )
            for kind, value in types.items()
        }
        if "repair" in nodes and life.mtbf is None and not any(one.mtbf for one in lives.values()):
            self._wrong(nodes["repair"], f"{path}.repair", "is never needed: no node fails", "add `mtbf: 60d`")
        return Failures(
            life,
            lives,
            self._sized(jobs, "failures.jobs", "mtbf", values.span, None),
            self._sized(jobs, "failures.jobs", "probability", values.share, 0),
            self._take(inside, "failures", "retries", values.retries, 3),
        )

    def _life(self, part: dict[str, Value], path: str, otherwise: NodeLife) -> NodeLife:
        return NodeLife(
            self._take(part, path, "mtbf", values.span, otherwise.mtbf),
            self._take(part, path, "repair", values.duration, otherwise.repair),
        )

    def _overruns(self, part: dict[str, Value]) -> Overruns:
        inside = self._sub(part, "overruns")
        for key in ("probability", "factor"):
            if inside and key not in inside:
                hint = "such as `overruns: {probability: 0.02, factor: 3}`"
                self._wrong(part["overruns"], "overruns", f"needs `{key}` too", hint)
        return Overruns(
            self._take(inside, "overruns", "probability", values.share, 0.0),
            self._take(inside, "overruns", "factor", values.factor, 1.0),
        )

    def _check_saving(self, part: dict[str, Value], profile: Profile) -> None:
        """A checkpoint before a stop that can never be done within the grace is a mistake."""
        saves = profile.checkpoints
        if not saves.before_stop:
            return
        for size in sorted({0.0, *_sizes(saves.cost), *_sizes(profile.grace)}):
            cost, grace = at(saves.cost, size), at(profile.grace, size)
            if cost > grace:
                gang = f" of {size:g} GPUs or more" if size else ""
                message = f"a job{gang} takes {cost:g} s to save and has {grace:g} s of grace: it would never be done"
                value = part["checkpoint"].pairs["before_stop"][1]
                self._wrong(value, "checkpoint.before_stop", message, "give it a grace of at least the cost")
                return

    # Mappings ---------------------------------------------------------------------------------------------------

    def _section(self, value: Value, path: str, kind: str) -> dict[str, Value]:
        """The values of a mapping whose keys are ours; a key that is not is a problem."""
        if _empty(value):
            return {}
        if value.kind != "map":
            where = path or "a profile"
            self._wrong(
                value,
                path,
                f"{where} is a mapping of keys, not {values.shown(value)}",
                f"the keys are {', '.join(KEYS[kind])}",
            )
            return {}
        found = {}
        for key, (mark, inside) in value.pairs.items():
            if key in KEYS[kind]:
                found[key] = inside
                self.places[_join(path, key)] = Place(self.file, mark.line, mark.column)
            else:
                self._wrong(mark, _join(path, key), "unknown key", _suggestion(key, KEYS[kind]))
        return found

    def _sub(self, part: dict[str, Value], key: str, path: str = "") -> dict[str, Value]:
        return self._section(part[key], _join(path, key), _join(path, key)) if key in part else {}

    def _named(self, part: dict[str, Value], path: str, key: str) -> dict[str, Value]:
        """The values of a mapping whose keys are names of the user's."""
        value = part.get(key)
        if value is None or _empty(value):
            return {}
        if value.kind != "map":
            self._wrong(
                value, f"{path}.{key}", f"is a mapping of names, not {values.shown(value)}", "write `{H100: ...}`"
            )
            return {}
        return {name: inside for name, (_, inside) in value.pairs.items()}

    def _sized(self, part: dict[str, Value], path: str, key: str, number: _Number, unset: _Unset) -> Sized | _Unset:
        """One number, or steps by the GPUs of the gang."""
        value = part.get(key)
        if value is None:
            return unset
        if value.kind == "map":
            return self._steps(value, _join(path, key), number) or unset
        try:
            return self._scalar(value, number)
        except (values.WrongValueError, UnitError) as error:
            self._wrong(value, _join(path, key), error.message, error.hint)
            return unset

    def _steps(self, value: Value, path: str, number: _Number) -> Steps:
        steps = []
        for key, (mark, inside) in value.pairs.items():
            if not re.fullmatch("[1-9][0-9]{0,6}", key):
                self._wrong(
                    mark, f"{path}.{key}", "is no size", "the keys are whole numbers from 1, such as `{1: ..., 8: ...}`"
                )
                continue
            steps.append((int(key), self._read(f"{path}.{key}", inside, number, 0.0)))
        if not value.pairs:
            self._wrong(value, path, "has no steps", "give one number, or `{1: ..., 8: ...}`")
        return tuple(sorted(steps))

    # Values -----------------------------------------------------------------------------------------------------

    def _take(
        self, part: dict[str, Value], path: str, key: str, read_as: Callable[[Value], _Read], default: _Read
    ) -> _Read:
        return self._read(_join(path, key), part[key], read_as, default) if key in part else default

    def _read(self, path: str, value: Value, read_as: Callable[[Value], _Read], default: _Read) -> _Read:
        try:
            return self._scalar(value, read_as)
        except (values.WrongValueError, UnitError) as error:
            self._wrong(value, path, error.message, error.hint)
            return default

    def _scalar(self, value: Value, read_as: Callable[[Value], _Read]) -> _Read:
        if value.kind != "scalar":
            raise values.WrongValueError(f"is one value, not {values.shown(value)}")
        return read_as(value)

    def _wrong(self, value: Value, path: str, message: str, hint: str) -> None:
        self.problems.append(Problem(self.file, value.line, value.column, path, message, hint))


def _suggestion(key: str, known: Iterable[str]) -> str:
    word = key.lower().replace("-", "_").replace(" ", "_")
    near = get_close_matches(word, list(known), n=1)
    meant = _ELSEWHERE.get(word) or (near[0] if near else "")
    for path, keys in KEYS.items():
        if not meant and word in keys:
            meant = _join(path, word)
    return f"did you mean `{meant}`?" if meant else f"known here: {', '.join(known)}"


def _sizes(sized: Sized) -> list[float]:
    return [size for size, _ in sized] if isinstance(sized, tuple) else []
