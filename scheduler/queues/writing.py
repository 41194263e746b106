"""From a `Tree` back to the file that applies to the same tree. Keys at their defaults are left out."""

from __future__ import annotations

from typing import Any

from ...jobs.units import format_duration
from ...policies.tree import DEFAULT, GPUS, Limits, PreemptionRules, QueueNode, Tree

JSON = dict[str, Any]


def write_queues(tree: Tree) -> str:
    """The queues as YAML. `parse_queues` of it gives an equal tree."""
    from ...jobs.spec.writing import to_yaml  # noqa: PLC0415 - its package loads pydantic

    return to_yaml(to_document(tree))


def to_document(tree: Tree) -> JSON:
    """The same as plain data."""
    document: JSON = {"apiVersion": "gpusched/v1", "kind": "Queues"}
    if tree.default and not (tree.default == DEFAULT and DEFAULT in tree):
        document["default_queue"] = tree.default
    if tree.topology:
        document["topology"] = list(tree.topology)
    document["queues"] = [entry_of(node) for node in tree.queues]
    return document


def entry_of(node: QueueNode) -> JSON:
    """One queue as the file has it."""
    rules, limits = node.preemption, node.limits
    usual = QueueNode("usual")
    entry: JSON = {
        "name": node.name,
        "parent": node.parent or None,
        "weight": None if node.weight == usual.weight else _number(node.weight),
        "nominal_quota": _amounts({flavour: quota.nominal for flavour, quota in node.quotas.items()}),
        "borrowing_limit": _amounts({flavour: quota.borrowing_limit for flavour, quota in node.quotas.items()}),
        "lending_limit": _amounts({flavour: quota.lending_limit for flavour, quota in node.quotas.items()}),
        "preemption": {
            key: value for key, value in rules._asdict().items() if value != getattr(PreemptionRules(), key)
        },
        "min_runtime": format_duration(node.min_runtime) if node.min_runtime else None,
        "grace": None if node.grace is None else format_duration(node.grace),
        "limits": _limits(limits),
        "priority": _priority(node),
        "non_preemptible_may_borrow": node.non_preemptible_may_borrow or None,
        "paused": node.paused or None,
        "users": {user: _number(weight) for user, weight in node.users.items()},
        "cells": dict(node.cells),
        "access": {} if node.submitters is None else {"submit": list(node.submitters)},
    }
    return {key: value for key, value in entry.items() if value is not None and value != {}}


def _amounts(amounts: dict[str, float | None]) -> float | JSON | None:
    given = {flavour: _number(amount) for flavour, amount in amounts.items() if amount is not None}
    return given[GPUS] if list(given) == [GPUS] else given


def _limits(limits: Limits) -> JSON:
    user = {"gpus": limits.user_gpus, "running_jobs": limits.user_running_jobs}
    found: JSON = {
        "running_jobs": limits.running_jobs,
        "per_user": {key: _number(value) for key, value in user.items() if value is not None},
        "per_job": {} if limits.job_gpus is None else {"gpus": _number(limits.job_gpus)},
    }
    return {key: value for key, value in found.items() if value is not None and value != {}}


def _priority(node: QueueNode) -> JSON:
    found = {"min": node.priority_min or None, "max": node.priority_max}
    return {key: value for key, value in found.items() if value is not None and (key, value) != ("max", 100)}


def _number(value: float) -> float:
    """A whole number without its point."""
    return int(value) if float(value).is_integer() else value
