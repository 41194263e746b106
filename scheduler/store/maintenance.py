"""Maintenance windows in the database, each with its line in the journal, written in one transaction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from ...jobs.errors import NotFoundError
from ...jobs.events import Event, Kind
from ..node_orders import Window
from .bulk import table_of
from .rows import text
from .sql import SqlStore
from .tables import MaintenanceRow


@dataclass(frozen=True, slots=True)
class Planned:
    """A window as it is stored. `cancelled`: when it was called off, in UTC seconds; None = it was not."""

    window: Window
    cancelled: float | None


def add_window(store: SqlStore, window: Window, now: float) -> Window:
    """Write a window under the next number. From the thread that commits only.

    Raises:
        StoreError: it cannot be written, or another control plane took over; nothing changed.
    """
    table = table_of(MaintenanceRow)
    with store.writer() as connection:
        number = 1 + (connection.scalar(select(func.max(table.c.id))) or 0)
        added = replace(window, id=number, added=now, reason=text(window.reason), by=text(window.by))
        connection.execute(
            insert(table).values(id=number, start=added.start, end=added.end, cancelled=None, data=_data(added))
        )
        store.append(connection, [_event(now, "maintenance added", added, added.by)])
    return added


def cancel_window(store: SqlStore, number: int, now: float, by: str) -> tuple[Window, bool]:
    """Call a window off. False = it had ended or was called off before, and nothing changed.

    Raises:
        NotFoundError: there is none of this number.
        StoreError: it cannot be written, or another control plane took over; nothing changed.
    """
    table = table_of(MaintenanceRow)
    with store.writer() as connection:
        row = connection.execute(select(table).where(table.c.id == number)).first()
        if row is None:
            raise NotFoundError(f"there is no maintenance window {number}", hint="`gpusched maintenance list`")
        planned = _planned(row)
        if planned.cancelled is not None or planned.window.end <= now:
            return planned.window, False
        connection.execute(update(table).where(table.c.id == number).values(cancelled=now))
        store.append(connection, [_event(now, "maintenance cancelled", planned.window, text(by))])
    return planned.window, True


def list_windows(connection: Connection, *, since: float | None = None) -> list[Planned]:
    """Windows by their start; only those that end after `since` and were not cancelled, if that is given."""
    table = table_of(MaintenanceRow)
    query = select(table).order_by(table.c.start, table.c.id)
    if since is not None:
        query = query.where(table.c.end > since, table.c.cancelled.is_(None))
    return [_planned(row) for row in connection.execute(query)]


def _data(window: Window) -> dict[str, Any]:
    return {
        "nodes": list(window.nodes),
        "labels": [list(pair) for pair in window.labels],
        "everywhere": window.everywhere,
        "reason": window.reason,
        "by": window.by,
        "added": window.added,
        "lead": window.lead,
    }


def _planned(row: Any) -> Planned:  # noqa: ANN401 - a row of SQLAlchemy's
    data = row.data
    window = Window(
        row.id,
        row.start,
        row.end,
        tuple(data["nodes"]),
        tuple((key, value) for key, value in data["labels"]),
        data["everywhere"],
        data["reason"],
        data["by"],
        data["added"],
        data["lead"],
    )
    return Planned(window, row.cancelled)


def _event(now: float, what: str, window: Window, by: str) -> Event:
    told = {"window": window.id, "start": window.start, "end": window.end, "by": by, "reason": window.reason}
    return Event(now, Kind.NODE, 0, 0, {"node": "", "what": what, **told, "nodes": list(window.nodes)})
