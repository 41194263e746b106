"""Statements for many rows at once: compiled once a database, fed plain tuples, nothing done a row in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, bindparam, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.sql.dml import Insert, Update

Row = tuple[Any, ...]


def table_of(model: type[DeclarativeBase]) -> Table:
    """The Core table of a model."""
    table = model.__table__
    assert isinstance(table, Table)
    return table


class Bulk:
    """One statement with positional parameters, for a list of rows."""

    def __init__(self, statement: Insert | Update, dialect: Dialect, names: Sequence[str]) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=list(names))
        order = compiled.positiontup
        assert list(order or ()) == list(names), f"parameters {order} are not in the order of {names}"
        self._sql = str(compiled)

    def run(self, connection: Connection, rows: Sequence[Row]) -> int:
        """Execute for every row, in order; how many rows it met."""
        if not rows:
            return 0
        return connection.exec_driver_sql(self._sql, list(rows)).rowcount


def insert_bulk(
    dialect: Dialect,
    model: type[DeclarativeBase],
    columns: Sequence[str],
    *,
    change: Sequence[str] | None = None,
) -> Bulk:
    """INSERT of these columns. `change`: which columns an existing row takes over; () = it stays as it is."""
    table = table_of(model)
    make = sqlite.insert if dialect.name == "sqlite" else postgresql.insert
    statement = make(table)
    if change == ():
        statement = statement.on_conflict_do_nothing()
    elif change is not None:
        statement = statement.on_conflict_do_update(
            index_elements=list(table.primary_key.columns),
            set_={name: statement.excluded[name] for name in change},
        )
    return Bulk(statement.inline(), dialect, columns)


def update_bulk(
    dialect: Dialect,
    model: type[DeclarativeBase],
    values: Mapping[str, ColumnElement[Any]],
    where: Sequence[ColumnElement[bool]],
    names: Sequence[str],
) -> Bulk:
    """UPDATE by key. `names`: the bind parameters in the order in which they stand in the statement."""
    statement = update(table_of(model)).where(*where).ordered_values(*values.items())
    return Bulk(statement, dialect, names)


def given(name: str, model: type[DeclarativeBase], column: str) -> ColumnElement[Any]:
    """A parameter of a column's type."""
    return bindparam(name, type_=table_of(model).c[column].type)
