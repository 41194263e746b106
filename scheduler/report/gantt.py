"""The Gantt of nodes: who held what when, as an occupancy by node and bin of time and as bars, packed for a script."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...cluster.backend import Node
from ...jobs.events import Kind
from ...jobs.job import Job, Placement
from . import Run, span_of
from .occupancy import changes, in_order

HEAT_ROWS, HEAT_BINS = 160, 720
NAME_BYTES = 400_000
"""Names of jobs are left out above this, and the job's number stands for it."""
USERS = 7
"""Users that get a colour of their own; the rest share one."""

SIZE_CLASSES: tuple[tuple[str, float], ...] = (
    ("none", 0),
    ("< 1", 0.999),
    ("1", 1),
    ("2", 2),
    ("3-4", 4),
    ("5-8", 8),
    ("9-16", 16),
    ("17-32", 32),
    ("33-64", 64),
    ("> 64", float("inf")),
)
"""Classes of jobs by GPUs of the whole gang: label and largest size."""


def size_class(gpus: float) -> int:
    """Index in SIZE_CLASSES of a gang of so many GPUs."""
    return next(i for i, (_, most) in enumerate(SIZE_CLASSES) if gpus <= most)


_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def pack(numbers: Iterable[int]) -> str:
    """Whole numbers as text: base64 digits of five bits, low first, the sixth says that more follow, sign in bit 0.

    The variable-length quantities of source maps (ECMA-426): a small number takes one character.
    """
    return "".join(map(_packed, numbers))


def _packed(number: int) -> str:
    rest = number << 1 if number >= 0 else (-number << 1) | 1
    text = ""
    while rest > 31:  # noqa: PLR2004 - five bits
        text += _DIGITS[(rest & 31) | 32]
        rest >>= 5
    return text + _DIGITS[rest]


@dataclass(frozen=True, slots=True)
class Hold:
    """One attempt's hold on its GPUs, from `start` to `end` in seconds since the first submission."""

    job: int
    start: float
    end: float
    pieces: Placement


def holds(run: Run) -> list[Hold]:
    """Every hold of the run, by start; one that goes on ends with the journal."""
    journal = in_order(run.journal)
    first, last = span_of(run, journal)
    running: dict[int, tuple[float, Placement]] = {}
    done: list[Hold] = []
    for time, kind, job, pieces in changes(journal):
        if kind is Kind.PLACED:
            running[job] = (time, pieces)
        elif kind is not Kind.CANCELLED:
            since, _ = running.pop(job)
            done.append(Hold(job, since - first, time - first, pieces))
    done.extend(Hold(job, since - first, last - first, pieces) for job, (since, pieces) in running.items())
    done.sort(key=lambda hold: (hold.start, hold.job, hold.end))
    return done


def heat(attempts: Iterable[Hold], nodes: Sequence[Node], span: float) -> dict[str, Any]:
    """How busy the GPUs of each node were in each bin of time, 0 to 63, one base64 digit a cell, row by row.

    Nodes without GPUs have no row; beyond HEAT_ROWS, neighbours share one.
    """
    with_gpus = [i for i, node in enumerate(nodes) if node.gpus]
    per_row = -(-len(with_gpus) // HEAT_ROWS) or 1
    row_of = {node: position // per_row for position, node in enumerate(with_gpus)}
    rows = -(-len(with_gpus) // per_row)
    if not rows or span <= 0:
        return {"rows": 0, "perRow": per_row, "bins": HEAT_BINS, "cells": ""}
    capacity = [0.0] * rows
    for node, row in row_of.items():
        capacity[row] += nodes[node].gpus
    width = span / HEAT_BINS
    edge = [[0.0] * (HEAT_BINS + 1) for _ in range(rows)]  # GPU-bins held in part of a bin
    full = [[0.0] * (HEAT_BINS + 2) for _ in range(rows)]  # differences of GPUs held throughout a bin
    for hold in attempts:
        a, b = hold.start / width, hold.end / width
        first, last = min(int(a), HEAT_BINS - 1), min(int(b), HEAT_BINS - 1)
        for node, gpus, milli, _ in hold.pieces:
            amount = gpus + milli / 1000
            if not amount:
                continue
            row = row_of[node]
            if first == last:
                edge[row][first] += amount * (b - a)
            else:
                edge[row][first] += amount * (first + 1 - a)
                edge[row][last] += amount * (b - last)
                full[row][first + 1] += amount
                full[row][last] -= amount
    cells = []
    for row in range(rows):
        held = 0.0
        for i in range(HEAT_BINS):
            held += full[row][i]
            share = (held + edge[row][i]) / capacity[row]
            cells.append(_DIGITS[min(63, max(0, round(63 * share)))])
    return {"rows": rows, "perRow": per_row, "bins": HEAT_BINS, "cells": "".join(cells)}


def bars(attempts: Iterable[Hold], index: dict[int, int], unit: float) -> str:
    """The bars of the Gantt, packed, by start.

    For each piece of a hold that has GPUs: start - the start before, job - the job before, duration, node, then 2 x
    GPUs of the piece, or for a shared GPU 2 x thousandths + 1 and its slot. Times in `unit` seconds, jobs by their
    place in the table of jobs.
    """
    return pack(_bar_numbers(attempts, index, unit))


def _bar_numbers(attempts: Iterable[Hold], index: dict[int, int], unit: float) -> Iterator[int]:
    last_start = last_job = 0
    for hold in attempts:
        start, end, job = round(hold.start / unit), round(hold.end / unit), index[hold.job]
        for node, gpus, milli, slot in hold.pieces:
            if not gpus and not milli:
                continue
            yield from (start - last_start, job - last_job, end - start, node)
            if milli:
                yield from (2 * milli + 1, slot)
            else:
                yield 2 * gpus
            last_start, last_job = start, job


def job_table(jobs: Sequence[Job], first: float, unit: float, classes: Sequence[int]) -> dict[str, Any]:
    """The jobs of a run, packed: number, submission, size class and user (an index into "users"; 0 = all others)."""
    held: dict[str, float] = defaultdict(float)
    for job in jobs:
        held[job.user] += job.gpu_seconds
    users = sorted((user for user in held if user), key=lambda user: (-held[user], user))[:USERS]
    user_index = {user: i for i, user in enumerate(users, 1)}
    class_index = {kind: i for i, kind in enumerate(classes)}
    ids = [job.id for job in jobs]
    submitted = [round((job.submitted - first) / unit) for job in jobs]
    with_names = any(job.name for job in jobs) and sum(len(job.name) + 3 for job in jobs) <= NAME_BYTES
    return {
        "ids": pack(_differences(ids)),
        "submitted": pack(_differences(submitted)),
        "sizes": pack(class_index[size_class(job.shape.total_gpus)] for job in jobs),
        "user": pack(user_index.get(job.user, 0) for job in jobs),
        "users": ["other users" if users else "all users", *users],
        "names": [job.name for job in jobs] if with_names else None,
    }


def _differences(numbers: Iterable[int]) -> Iterator[int]:
    last = 0
    for number in numbers:
        yield number - last
        last = number
