"""What no single key of a queue file can tell: names that clash, parents that are missing, circles, limits in vain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import NamedTuple

from ...cluster.topology import LEVELS
from ...jobs.errors import Problem
from ...jobs.spec.problems import Origin
from ...policies.tree import CPUS, DEFAULT, GPUS, Tree
from .model import QueueEntry, flavour_of

Entries = Mapping[int, QueueEntry]
"""The entries without faults of their own, by their place in the file."""


class Link(NamedTuple):
    """What the other entries need to know of one, also where the rest of it is wrong."""

    number: int
    name: str
    parent: str


def check_tree(links: list[Link], default: str, origin: Origin) -> Iterator[Problem]:
    """Problems between the entries: names that clash, parents that are missing, circles, the default queue."""
    first: dict[str, int] = {}
    for number, name, _ in links:
        if name in first:
            line = origin.root.find(("queues", first[name], "name")).line if origin.root else 0
            message = f"there is a queue {name} already, in line {line}"
            yield origin.problem(("queues", number, "name"), message, "rename one of them")
        first.setdefault(name, number)
    yield from _parents(links, first, origin)
    yield from _default(links, default, origin)


def check_entries(entries: Entries, origin: Origin) -> Iterator[Problem]:
    """Problems between the keys of one entry: bounds that cross, limits that can do nothing."""
    for number, entry in entries.items():
        low, high = entry.priority.min, entry.priority.max
        if low > high:
            yield origin.problem(("queues", number, "priority"), f"min {low} is above max {high}", "swap them")
        for key, limits in (("borrowing_limit", entry.borrowing_limit), ("lending_limit", entry.lending_limit)):
            if limits and entry.parent is None:
                message = (
                    f"{entry.name} has no parent, so there is nobody to {'borrow from' if key[0] == 'b' else 'lend to'}"
                )
                yield origin.problem(
                    ("queues", number, key), message, "give it a parent, or leave the key out", on_key=True
                )


def check_cells(entries: Entries, topology: tuple[str, ...], origin: Origin) -> Iterator[Problem]:
    """Cells of what is no level."""
    levels = ("gpu", "node", *reversed(topology or LEVELS))
    for number, entry in entries.items():
        for level in entry.cells:
            if level not in levels:
                yield origin.problem(
                    ("queues", number, "cells", level),
                    f"{level} is no level of the topology",
                    f"one of {', '.join(levels)}; others are named in `topology`",
                    on_key=True,
                )


def check_lending(entries: Entries, origin: Origin) -> Iterator[Problem]:
    """Queues that would lend more than they have. Only for a file whose entries are all without faults."""
    pooled = _pooled(entries)
    for number, entry in entries.items():
        for flavour, limit in entry.lending_limit.items():
            own = pooled.get((entry.name, flavour), 0.0)
            if limit > own + 1e-9:
                path = _amount_path(("queues", number, "lending_limit"), flavour, origin)
                message = f"lends {limit:g}, but its nominal quota is {own:g}"
                yield origin.problem(path, message, f"write {own:g} or less")


def check_use(tree: Tree, origin: Origin) -> Iterator[Problem]:
    """Quotas of a GPU type that a queue could never use, for want of a quota of GPUs of any type."""
    for number, node in enumerate(tree.queues):
        most = tree.potential(node.name, GPUS)
        for flavour, quota in node.quotas.items():
            if flavour not in {GPUS, CPUS} and quota.nominal > most:
                path = _amount_path(("queues", number, "nominal_quota"), flavour, origin)
                message = f"is {quota.nominal:g}, but {node.name} could have only {most:g} GPUs of any type"
                yield origin.problem(
                    path, message, f"an {flavour} counts as one of its `{GPUS}` too: give it a quota of both"
                )


def _parents(links: list[Link], first: Mapping[str, int], origin: Origin) -> Iterator[Problem]:
    above = {name: parent for number, name, parent in links if parent and first[name] == number}
    told: set[str] = set()
    for number, name, parent in links:
        if not parent:
            continue
        path = ("queues", number, _parent_key(number, origin))
        if parent not in first:
            near = get_close_matches(parent, sorted(first.keys() - {name}), n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"add `- name: {parent}` to the list"
            yield origin.problem(path, f"there is no queue {parent}", hint)
            continue
        circle = _circle(name, above) if first[name] == number else []
        if circle and not told & set(circle):
            told |= set(circle)
            words = "is its own parent" if len(circle) == 1 else f"is a circle: {' -> '.join((*circle, circle[0]))}"
            yield origin.problem(path, words, "leave `parent` out of one of them")


def _circle(name: str, above: Mapping[str, str]) -> list[str]:
    """The names on the way up from a queue back to itself; empty = the way ends."""
    way = [name]
    while (parent := above.get(way[-1])) is not None:
        if parent == name:
            return way
        if parent in way:
            return []  # a circle further up, which is told there
        way.append(parent)
    return []


def _parent_key(number: int, origin: Origin) -> str:
    pairs = origin.root.find(("queues", number)).pairs if origin.root else {}
    return "cohort" if "cohort" in pairs else "parent"


def _default(links: list[Link], default: str, origin: Origin) -> Iterator[Problem]:
    below = {parent: name for _, name, parent in reversed(links) if parent}
    numbers = {name: number for number, name, _ in links}
    if not default:
        if DEFAULT in numbers and DEFAULT in below:
            yield origin.problem(
                ("queues", numbers[DEFAULT], "name"),
                "jobs that name no queue go to `default`, and this one has queues below it",
                "rename it, or set `default_queue` to one of those",
            )
    elif default not in numbers:
        near = get_close_matches(default, sorted(numbers), n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"the queues are {', '.join(sorted(numbers))}"
        yield origin.problem(("default_queue",), f"there is no queue {default}", hint)
    elif default in below:
        message = f"{default} has queues below it and takes no jobs"
        yield origin.problem(("default_queue",), message, f"write `{below[default]}`")
    elif default != DEFAULT and DEFAULT in numbers:
        message = f"is {default}, but jobs that name no queue go to the one named `default`"
        yield origin.problem(("default_queue",), message, "rename that one, or leave `default_queue` out")


def _pooled(entries: Entries) -> dict[tuple[str, str], float]:
    """For each queue and flavour its nominal quota and those of all below it: what it could lend at most."""
    above = {entry.name: entry.parent for entry in entries.values()}
    pooled: dict[tuple[str, str], float] = {}
    for entry in entries.values():
        name: str | None = entry.name
        for _ in above:  # a circle ends too
            if name is None:
                break
            for flavour, nominal in entry.nominal_quota.items():
                pooled[name, flavour] = pooled.get((name, flavour), 0.0) + nominal
            name = above.get(name)
    return pooled


def _amount_path(path: tuple[str | int, ...], flavour: str, origin: Origin) -> tuple[str | int, ...]:
    """The path of one flavour's amount as the file has it: a bare number has none."""
    pairs = origin.root.find(path).pairs if origin.root else {}
    written = next((key for key in pairs if flavour_of(key) == flavour), None)
    return path if written is None else (*path, written)
