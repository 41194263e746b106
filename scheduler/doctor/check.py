"""One thing that was looked at: how it stands, why that matters and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from rich.markup import escape
from rich.table import Table


class Status(StrEnum):
    """ok; warn = works, but something is lost or will be; fail = jobs do not run or are lost; skip = not applicable."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        name: stable token.
        status: how it stands.
        found: what is there, with its figures.
        why: what goes wrong because of it; empty when nothing does.
        fix: what to do; never empty on warn and fail.
    """

    name: str
    status: Status
    found: str
    why: str = ""
    fix: str = ""

    def __post_init__(self) -> None:
        assert self.fix or self.status in (Status.OK, Status.SKIP), f"{self.name}: a fault without its mend"


def ok(name: str, found: str) -> Check:
    """All is well."""
    return Check(name, Status.OK, found)


def skip(name: str, found: str) -> Check:
    """Does not apply here, or cannot be seen."""
    return Check(name, Status.SKIP, found)


def warn(name: str, found: str, *, why: str, fix: str) -> Check:
    """Works, at a price."""
    return Check(name, Status.WARN, found, why, fix)


def fail(name: str, found: str, *, why: str, fix: str) -> Check:
    """Does not work."""
    return Check(name, Status.FAIL, found, why, fix)


def exit_code(checks: Sequence[Check]) -> int:
    """1 when anything fails, else 0: warnings do not stop a script."""
    return int(any(check.status is Status.FAIL for check in checks))


def as_json(checks: Sequence[Check]) -> list[dict[str, str]]:
    """One object a check."""
    return [{"name": c.name, "status": c.status.value, "found": c.found, "why": c.why, "fix": c.fix} for c in checks]


_COLOURS = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red", Status.SKIP: "dim"}


def as_table(checks: Sequence[Check]) -> Table:
    """For a terminal: what fails first, then what warns; below each fault why it matters and how to mend it."""
    order = [Status.FAIL, Status.WARN, Status.OK, Status.SKIP]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("CHECK", no_wrap=True)
    table.add_column("STATUS", no_wrap=True)
    table.add_column("FOUND", overflow="fold")
    for check in sorted(checks, key=lambda check: order.index(check.status)):
        lines = [escape(check.found)]
        if check.why:
            lines.append(f"[dim]why:[/dim] {escape(check.why)}")
        if check.fix:
            lines.append(f"[dim]fix:[/dim] {escape(check.fix)}")
        colour = _COLOURS[check.status]
        table.add_row(check.name, f"[{colour}]{check.status}[/{colour}]", "\n".join(lines))
    return table
