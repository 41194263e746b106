"""`--watch`: a picture that is drawn again and again, or events as they happen."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ...jobs.errors import UnreachableError
from ..output import Listing, Style, render
from .session import Session

if TYPE_CHECKING:
    from ..client import Client

EVERY = 2.0


watch_option = click.option(
    "-w",
    "--watch",
    type=click.FloatRange(0.2, 3600),
    is_flag=False,
    flag_value=EVERY,
    default=None,
    metavar="[SECONDS]",
    help="Draw it again every 2 seconds, or as many as given; with -o json, one event a line.",
)


def redraw(session: Session, style: Style, picture: Callable[[Style], Listing], every: float) -> None:
    """Show a listing again and again until Ctrl-C; where there is no terminal, one below the other."""

    def draw() -> str:
        now = replace(style, width=session.width())
        listing = picture(now)
        return render(listing, now) or f"{listing.empty}\n"

    redraw_text(draw, every)


def redraw_text(draw: Callable[[], str], every: float) -> None:
    """The same for any text. A control plane that goes away is waited for."""
    terminal = sys.stdout.isatty()
    before = ""
    while True:
        try:
            text = draw()
        except UnreachableError as error:
            text = f"{before}{error.message}: trying again\n" if terminal else f"{error.message}: trying again\n"
        else:
            before = text
        if terminal:
            # Home, each line to its end, then what is left of the picture before.
            sys.stdout.write("\x1b[H" + text.replace("\n", "\x1b[K\n") + "\x1b[J")
        else:
            sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
        time.sleep(every)


def events_as_lines(client: Client, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Print events as JSON lines as they happen, until Ctrl-C or the end of the control plane."""
    for event in client.all_events():
        if wanted(event):
            sys.stdout.write(json.dumps(event, ensure_ascii=False) + "\n")
            sys.stdout.flush()
