"""What a queue file may say, key by key: each value with its check and its words when it fails."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from ...jobs.spec.fields import (
    LABEL_KEY_PATTERN,
    ApiVersion,
    Duration,
    Fault,
    Name,
    Part,
    Truth,
    choice,
    refuse,
    refuse_all,
    shown,
    whole,
)
from ...jobs.spec.parts import Grace
from ...jobs.spec.resources import KNOWN_TYPES
from ...jobs.units import milli
from ...policies.tree import CPUS, GPUS
from ..access.model import Role

MOST = 1_000_000
"""GPUs, CPUs or weight of one queue; more is a slip of the keyboard."""
MOST_QUEUES = 1000

_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,62}")
_SPELLING = {name.lower(): name for name in KNOWN_TYPES}
_ANY = {"gpu": GPUS, "gpus": GPUS, "any": GPUS, "cpu": CPUS, "cpus": CPUS}

_AMOUNTS_FORM = "write it like 16, or {H100: 16, A100: 8}"


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        digits = isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", value)
        raise refuse(f"must be a number{what}, not {shown(value)}", "remove the quotes" if digits else "")
    if not math.isfinite(value) or not 0 <= value <= MOST:
        raise refuse(f"must be from 0 to {MOST:,}, not {shown(value)}")
    return float(value)


def _weight(value: object) -> float:
    return _number(value, "")


def _amount(value: object) -> float:
    number = _number(value, " of GPUs")
    if milli(number) is None:
        raise refuse(f"{shown(value)} is too fine", "a thousandth of a GPU is the smallest step")
    return number


def flavour_of(name: str) -> str:
    """The flavour that a file's word means: `h100` is H100, `gpu` is GPUs of any type."""
    word = name.lower()
    return _ANY.get(word) or _SPELLING.get(word) or name


def _amounts(value: object) -> dict[str, float]:
    """GPUs by flavour; a bare number is GPUs of any type."""
    if not isinstance(value, Mapping):
        if isinstance(value, str | list) or value is None:
            raise refuse(
                f"must be a number of GPUs or a mapping of GPU types to numbers, not {shown(value)}", _AMOUNTS_FORM
            )
        return {GPUS: _amount(value)}
    found: dict[str, float] = {}
    faults: list[Fault] = []
    for key, amount in value.items():
        flavour = flavour_of(str(key))
        if not _TYPE.fullmatch(str(key)):
            faults.append(
                Fault(
                    f"`{shown(key)}` is no GPU type", f"a type such as H100, `{GPUS}` or `{CPUS}`", (key,), on_key=True
                )
            )
        elif flavour in found:
            faults.append(Fault(f"{flavour} is named twice", "keep one of them", (key,), on_key=True))
        else:
            found[flavour] = 0.0
            try:
                found[flavour] = _amount(amount)
            except ValueError as error:
                faults += [fault._replace(at=(key,)) for fault in error.context["faults"]]  # type: ignore[attr-defined]  # made by refuse
    if faults:
        raise refuse_all(faults)
    return found


Amounts = Annotated[dict[str, float], BeforeValidator(_amounts)]
Weight = Annotated[float, BeforeValidator(_weight)]


def _users(value: object) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise refuse(f"must be a mapping of users to weights, not {shown(value)}", "write `users: {ann: 2}`")
    faults: list[Fault] = []
    found: dict[str, float] = {}
    for key, weight in value.items():
        try:
            found[str(key)] = _weight(weight)
        except ValueError as error:
            faults += [fault._replace(at=(key,)) for fault in error.context["faults"]]  # type: ignore[attr-defined]  # made by refuse
    if faults:
        raise refuse_all(faults)
    return found


def _cells(value: object) -> dict[str, int]:
    form = "write `cells: {rack: 1, node: 4, gpu: 2}`"
    if not isinstance(value, Mapping):
        raise refuse(f"must be a mapping of levels to numbers of cells, not {shown(value)}", form)
    faults: list[Fault] = []
    found: dict[str, int] = {}
    for key, count in value.items():
        if not re.fullmatch(LABEL_KEY_PATTERN[1:-1], str(key)):
            faults.append(
                Fault(f"`{shown(key)}` is no level", "`gpu`, `node` or a node label such as rack", (key,), on_key=True)
            )
            continue
        try:
            found[str(key)] = whole(0, MOST)(count)
        except ValueError as error:
            faults += [fault._replace(at=(key,)) for fault in error.context["faults"]]  # type: ignore[attr-defined]  # made by refuse
    if faults:
        raise refuse_all(faults)
    return {level: count for level, count in found.items() if count}


_RULES = ("never", "lower_priority", "any")
Rule = Annotated[Literal["never", "lower_priority", "any"], choice(*_RULES)]
LowerOnly = Annotated[Literal["never", "lower_priority"], choice("never", "lower_priority")]


class Preemption(Part):
    """Whose preemptible jobs the jobs of a queue may preempt."""

    within_queue: LowerOnly = Field(default="lower_priority", description="Jobs of the same queue.")
    reclaim_within_cohort: Rule = Field(
        default="any", description="Jobs of queues above their nominal quota, for one that stays within its own."
    )
    borrow_within_cohort: LowerOnly = Field(default="never", description="The same, for one that borrows.")


class PerUser(Part):
    """What one user may hold in a queue at a time."""

    gpus: Annotated[float, BeforeValidator(_amount)] | None = Field(default=None, description="GPUs of any type.")
    running_jobs: Annotated[int, BeforeValidator(whole(0, MOST))] | None = Field(
        default=None, description="Jobs that hold GPUs."
    )


class PerJob(Part):
    """What one job may ask for."""

    gpus: Annotated[float, BeforeValidator(_amount)] | None = Field(default=None, description="GPUs of its gang.")


class QueueLimits(Part):
    """What a queue with all queues below it may run at most."""

    running_jobs: Annotated[int, BeforeValidator(whole(0, MOST))] | None = Field(
        default=None, description="Jobs that hold GPUs at a time."
    )
    per_user: PerUser = Field(default=PerUser(), description="For each user.")
    per_job: PerJob = Field(default=PerJob(), description="For each job.")


_Priority = Annotated[int, BeforeValidator(whole(0, 100))]


class Priority(Part):
    """Bounds within which a job's priority is brought."""

    min: _Priority = Field(default=0, description="The lowest.")
    max: _Priority = Field(default=100, description="The highest.")


_WHO = re.compile(r"(user:|group:|role:)?(?![0-9]+\Z)[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_WHO_FORM = "a user such as ann, `group:nlp`, or `role:operator`"


def _submitters(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise refuse(f"must be a list of who may, not {shown(value)}", "write `submit: [ann, group:nlp]`")
    faults: list[Fault] = []
    found: list[str] = []
    for number, who in enumerate(value):
        kind, colon, name = who.partition(":") if isinstance(who, str) else ("", "", "")
        if not isinstance(who, str) or not _WHO.fullmatch(who):
            faults.append(Fault(f"`{shown(who)}` is nobody", _WHO_FORM, (number,)))
        elif colon and kind == "role" and name not in set(Role):
            near = get_close_matches(name, list(Role), n=1)
            hint = f"did you mean `role:{near[0]}`?" if near else f"one of {', '.join(Role)}"
            faults.append(Fault(f"there is no role {name}", hint, (number,)))
        elif (word := name if kind == "user" else who) in found:
            faults.append(Fault(f"{word} is named twice", "keep one of them", (number,)))
        else:
            found.append(word)
    if faults:
        raise refuse_all(faults)
    return tuple(found)


class Access(Part):
    """Who may use a queue. Admins always may; a role counts for those above it too."""

    submit: Annotated[tuple[str, ...], BeforeValidator(_submitters)] | None = Field(
        default=None, description="Who may submit. Left out: whoever may submit to the queue above it, else everybody."
    )


class QueueEntry(Part):
    """One queue of the file."""

    name: Name = Field(description="What jobs call it; unique.")
    parent: Name | None = Field(default=None, description="The queue above it. Also called cohort. Left out: none.")
    weight: Weight = Field(default=1.0, description="Its share against its siblings' where quotas leave it open.")
    nominal_quota: Amounts = Field(default={}, description="GPUs that are its own.")
    borrowing_limit: Amounts = Field(default={}, description="GPUs that it may use beyond them. Left out: no limit.")
    lending_limit: Amounts = Field(default={}, description="Of its own, what others may use. Left out: all.")
    preemption: Preemption = Field(default=Preemption(), description="Whose jobs its own may preempt.")
    min_runtime: Duration = Field(default=0.0, description="Time that a job of it runs before it may be preempted.")
    grace: Grace | None = Field(default=None, description="Time to save and leave, for jobs of it that do not say.")
    limits: QueueLimits = Field(default=QueueLimits(), description="What it may run at most.")
    priority: Priority = Field(default=Priority(), description="Bounds of its jobs' priorities.")
    non_preemptible_may_borrow: Truth = Field(
        default=False, description="Whether jobs that cannot be preempted may go beyond the nominal quota."
    )
    paused: Truth = Field(default=False, description="Nothing of it or below it starts.")
    users: Annotated[dict[str, float], BeforeValidator(_users)] = Field(
        default={}, description="Weights of users among each other; who is not named has 1."
    )
    access: Access = Field(default=Access(), description="Who may use it.")
    cells: Annotated[dict[str, int], BeforeValidator(_cells)] = Field(
        default={}, description="Virtual cells that it owns under the policy hived, by level."
    )


def _labels(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise refuse(f"must be a list of node labels, not {shown(value)}", "write `topology: [pod, rack]`")
    faults: list[Fault] = []
    for number, label in enumerate(value):
        if not isinstance(label, str) or not re.fullmatch(LABEL_KEY_PATTERN[1:-1], label) or label in {"gpu", "node"}:
            faults.append(Fault(f"`{shown(label)}` is no label key", "a node label such as rack", (number,)))
        elif label in value[:number]:
            faults.append(Fault(f"{label} is named twice", "keep one of them", (number,)))
    if faults:
        raise refuse_all(faults)
    return tuple(value)


class QueueFile(Part):
    """The whole file, apart from `queues`, whose entries are checked one by one."""

    api_version: ApiVersion = Field(default="gpusched/v1", alias="apiVersion", description="Version of this format.")
    kind: Annotated[Literal["Queues"], choice("Queues")] = Field(default="Queues", description="What the file holds.")
    default_queue: Name | None = Field(
        default=None, description="The queue of jobs that name none. Left out: `default`, if there is one."
    )
    topology: Annotated[tuple[str, ...], BeforeValidator(_labels)] = Field(
        default=(), description="Node labels that are levels of the topology, the widest first. Left out: the usual."
    )
    queues: object = Field(description="A list of queues.")
