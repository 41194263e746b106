"""How a trace file is to be read: the options that `simulate` and `trace` share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def trace_options(function: F) -> F:
    """--format, --columns, --gang and --resources, handed over as one mapping `trace_form` for `read_trace`."""

    @click.option("--format", "format_", metavar="NAME", help="Format of the trace; left out: told by the content.")
    @click.option(
        "--columns", metavar="FIELD=COLUMN,...", help="Columns of a CSV: submitted, duration and gpus at least."
    )
    @click.option(
        "--gang",
        type=click.Choice(["total", "nodes"]),
        default="total",
        show_default=True,
        help="total: a job's GPUs go where they fit; nodes: on as many nodes as the trace says.",
    )
    @click.option(
        "--resources",
        type=click.Choice(["gpus", "all"]),
        default="gpus",
        show_default=True,
        help="all: ask for CPUs and memory too, and keep jobs without GPUs.",
    )
    @wraps(function)
    def gathered(
        *args: Any,  # noqa: ANN401 - whatever the verb takes
        format_: str | None,
        columns: str | None,
        gang: str,
        resources: str,
        **rest: Any,  # noqa: ANN401 - likewise
    ) -> Any:  # noqa: ANN401 - whatever the verb gives
        form = {"format": format_, "columns": columns, "gang": gang, "resources": resources}
        return function(*args, trace_form=form, **rest)

    return gathered  # type: ignore[return-value]  # click.option is typed to hand its function through
