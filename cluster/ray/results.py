"""What the ranks of an attempt left behind: which of them failed first, and why, as the details of FINISHED."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Result = dict[str, Any]
"""A rank's `exit.json`, see supervisor.py; `found` is what endings.py found in its log."""

ECHOES = frozenset({"nccl", "network"})
"""Built-in patterns of a rank that notices the death of another one."""

MEMORY_MONITOR = ("NODE_OUT_OF_MEMORY", "running low on memory", "OutOfMemoryError")
"""How Ray says that its memory monitor killed a worker."""


def first_failed(results: Mapping[int, Result], died: Mapping[int, float]) -> int | None:
    """The rank that failed first; None = none failed.

    What failed by itself counts before what was told to end for it, and what has a reason of its own before what only
    saw another one go.

    Args:
        results: by rank.
        died: when each one's main process died, all on one clock.
    """
    failing = [rank for rank, result in results.items() if result["exit_code"]]
    return min(failing, key=lambda rank: (_follows(results[rank]), died[rank], rank), default=None)


def _follows(result: Result) -> int:
    """0 = it failed by itself, 1 = it may have seen another fail, 2 = it was told to end."""
    if result.get("cause") != "exit":
        return 2
    found = result.get("found") or {}
    return int(found.get("cause") == "pattern" and found.get("which") in ECHOES)


def finished_data(results: Mapping[int, Result], failed: int | None, node: str = "") -> dict[str, Any]:
    """FINISHED's details, from the ranks' results, the rank that failed first, and the name of its node."""
    first: Result = results[failed] if failed is not None else {"exit_code": 0, "signal": None, "message": ""}
    where = {"node": node} if failed is not None and node else {}
    return {
        "exit_code": first["exit_code"],
        "signal": first.get("signal"),
        "failed_rank": failed,
        "message": first.get("message", ""),
        "leaked": sum(result.get("leaked", 0) for result in results.values()),
        **{key: value for key, value in (first.get("found") or {}).items() if value not in ("", [])},
        **where,
    }


def by_memory_monitor(error: BaseException) -> bool:
    """Whether an actor died because Ray's memory monitor killed its worker."""
    return any(words in str(error) for words in MEMORY_MONITOR)
