"""What the verbs share: the command class, how a listing is printed, how jobs are named."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .session import Session, common_options

if TYPE_CHECKING:
    from ..output import Style

F = TypeVar("F", bound=Callable[..., Any])
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def verb(name: str, *, examples: str = "", cls: type[click.Command] = click.Command) -> Callable[[F], click.Command]:
    """Make a function the command `name`, with the options that all have and examples below its help."""

    def decorate(function: F) -> click.Command:
        lines = "\n".join(f"  {line}" for line in examples.strip().splitlines())
        epilog = f"\b\nExamples:\n{lines}" if examples else None
        command = click.command(name, cls=cls, context_settings=SETTINGS, epilog=epilog)(function)
        command.params += common_options()
        return command

    return decorate


def form_option(function: F) -> F:
    """-o, handed over as `style`."""
    from functools import wraps  # noqa: PLC0415 - the standard library's, and small

    from ..config import FORMATS  # noqa: PLC0415 - the top-level help does not need it

    @click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(FORMATS),
        metavar="FORM",
        help=f"{', '.join(FORMATS)}; left out: as configured, else table.",
    )
    @wraps(function)
    def with_style(*args: Any, form: str | None, **rest: Any) -> Any:  # noqa: ANN401 - whatever the verb takes and gives
        import sys  # noqa: PLC0415 - the stream of this moment

        from ..output import Style  # noqa: PLC0415 - loaded by verbs that print

        session = click.get_current_context().ensure_object(Session)
        style = Style(
            form=form or session.config["output"], colour=session.colour_on(sys.stdout), width=session.width()
        )
        return function(*args, style=style, **rest)

    return with_style  # type: ignore[return-value]  # click.option is typed to hand its function through


def output_options(function: F) -> F:
    """-o, --columns, --no-headers and --sort-by, handed over as one `style`: for verbs that print a table."""
    from dataclasses import replace  # noqa: PLC0415 - the standard library's, and small
    from functools import wraps  # noqa: PLC0415 - likewise

    @click.option("--columns", metavar="A,B", help="These columns only, in this order.")
    @click.option("--no-headers", is_flag=True, help="No headings.")
    @click.option("--sort-by", metavar="COLUMN", default="", help="Sort rows; `-` before the name turns it around.")
    @wraps(function)
    def with_table(
        *args: Any,  # noqa: ANN401 - whatever the verb takes
        style: Style,
        columns: str | None,
        no_headers: bool,
        sort_by: str,
        **rest: Any,  # noqa: ANN401 - likewise
    ) -> Any:  # noqa: ANN401 - whatever the verb gives
        chosen = tuple(filter(None, (columns or "").split(",")))
        return function(*args, style=replace(style, columns=chosen, headers=not no_headers, sort_by=sort_by), **rest)

    return form_option(with_table)  # type: ignore[return-value]  # as above


def pairs(_ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`KEY=VALUE` options as a mapping."""
    found: dict[str, str] = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE", param=parameter)
        found[key] = value
    return found


selector = click.option(
    "-l", "--selector", "labels", metavar="KEY=VALUE", multiple=True, callback=pairs, help="Jobs with this label."
)

node_selector = click.option(
    "-l", "--selector", "labels", metavar="KEY=VALUE", multiple=True, callback=pairs, help="Nodes with this label."
)


def since_text(_ctx: click.Context, parameter: click.Parameter, value: str | None) -> str:
    """`--since` as the API takes it: a duration back from now (`2h`), or a time in ISO 8601."""
    if not value:
        return ""
    import time  # noqa: PLC0415 - only here
    from datetime import UTC, datetime  # noqa: PLC0415 - likewise

    from ...jobs.units import UnitError, parse_duration  # noqa: PLC0415 - likewise

    try:
        return f"{time.time() - parse_duration(value):.3f}"
    except UnitError:
        pass  # then it is a time
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is no time: write 2h, 7d, 2026-03-01 or 2026-03-01T12:00:00Z", param=parameter
        ) from None
    return f"{(found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp():.3f}"


since_option = click.option(
    "--since", metavar="TIME", callback=since_text, help="From then on: 2h or 7d ago, or 2026-03-01T12:00:00Z."
)
