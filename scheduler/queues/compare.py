"""What changes from one tree to another, and what a tree asks of a cluster that has not got it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ...cluster.backend import Node
from ...policies.tree import CPUS, GPUS, Tree
from .writing import entry_of

JSON = dict[str, Any]


_AMOUNTS = {"nominal_quota", "borrowing_limit", "lending_limit"}


class Change(NamedTuple):
    """One difference.

    Attributes:
        queue: of which queue; empty = of the file as a whole.
        key: what of it; empty = the queue itself came or went.
        old, new: as the file says them; None = left out.
    """

    queue: str
    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        if self.key:
            of = f"queue {self.queue}: " if self.queue else ""
            return f"~ {of}{self.key}: {_shown(self.old)} -> {_shown(self.new)}"
        mark, entry = ("-", self.old) if self.new is None else ("+", self.new)
        said = ", ".join(f"{key} {_shown(value)}" for key, value in entry.items() if key != "name")
        return f"{mark} queue {self.queue}{f': {said}' if said else ''}"


def changes(old: Tree | None, new: Tree | None) -> list[Change]:
    """Everything by which `new` differs from `old`, in the order of `new`, what is gone last. None = no queues."""
    before = {} if old is None else {node.name: entry_of(node) for node in old.queues}
    after = {} if new is None else {node.name: entry_of(node) for node in new.queues}
    found = list(_of_file(old, new))
    for name, entry in after.items():
        if name not in before:
            found.append(Change(name, "", None, entry))
            continue
        was, now = dict(_flat(before[name])), dict(_flat(entry))
        found += [
            Change(name, key, was.get(key), now.get(key))
            for key in dict.fromkeys((*was, *now))
            if was.get(key) != now.get(key)
        ]
    found += [Change(name, "", entry, None) for name, entry in before.items() if name not in after]
    if not found and old != new:
        found.append(Change("", "order", list(before), list(after)))
    return found


def _of_file(old: Tree | None, new: Tree | None) -> Iterator[Change]:
    was, now = "" if old is None else old.default, "" if new is None else new.default
    if was != now:
        yield Change("", "default_queue", was or None, now or None)
    had, has = () if old is None else old.topology, () if new is None else new.topology
    if had != has:
        yield Change("", "topology", list(had) or None, list(has) or None)


def _flat(entry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested keys as paths: `limits.per_user.gpus`."""
    for key, value in entry.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif key in _AMOUNTS:
            yield f"{key}.{GPUS}", value  # a bare number stands for them
        else:
            yield f"{prefix}{key}", value


def _shown(value: object) -> str:
    if value is None:
        return "(left out)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shown(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def has(nodes: Iterable[Node]) -> dict[str, float]:
    """GPUs by type, and in all under `gpus`, and CPUs under `cpus`, of some nodes; empty = there are none."""
    found: defaultdict[str, float] = defaultdict(float)
    for node in nodes:
        found[GPUS] += node.gpus
        found[CPUS] += node.cpu_milli / 1000
        if node.gpu_type:
            found[node.gpu_type] += node.gpus
    return dict(found)


def beyond(tree: Tree, cluster: Mapping[str, float]) -> list[str]:
    """A warning for each flavour whose nominal quotas add up to more than the cluster has.

    Args:
        tree: the queues.
        cluster: GPUs by type, and in all under `gpus`; CPUs under `cpus`. Empty = not known: nothing is said.
    """
    if not cluster:
        return []
    there_is = {flavour.lower(): amount for flavour, amount in cluster.items()}
    found = []
    for flavour, quotas in tree.totals().items():
        there = there_is.get(flavour.lower(), 0.0)
        if quotas > there:
            what = {GPUS: "GPUs", CPUS: "CPUs"}.get(flavour, f"{flavour} GPUs")
            found.append(f"nominal quotas add up to {quotas:g} {what}, and the cluster has {there:g}")
    return found
