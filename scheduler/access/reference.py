"""The table of permissions as docs/access.md has it: `python -m gpusched.scheduler.access.reference`."""

from __future__ import annotations

import sys

from .permissions import PERMISSIONS, Rule


def table() -> str:
    """Markdown, a line a route; the routes of a role together."""
    rows = sorted(PERMISSIONS.items(), key=_order)
    lines = ["| role | others' | verb | route |", "|---|---|---|---|"]
    for route, rule in rows:
        lines.append(f"| {rule.least} | {rule.others or ''} | {rule.verb} | `{route}` |")
    return "\n".join(lines) + "\n"


def _order(row: tuple[str, Rule]) -> tuple[int, int]:
    _, rule = row
    return rule.least.rank, -1 if rule.others is None else rule.others.rank


if __name__ == "__main__":
    sys.stdout.write(table())
