"""`gpusched logs`."""

from __future__ import annotations

from typing import Literal

import click

from ..output import safe
from ..transport import error_of
from .follow import Place, Printer, ended, follow
from .refs import JOB, owner_of
from .session import Session, pass_session
from .verb import verb

EXAMPLES = """
gpusched logs 12
gpusched logs -f @   # my last job, until it ends
gpusched logs 12 --rank 1 --tail 100
gpusched logs 12 --attempt 1   # what an earlier attempt printed
"""


class RankType(click.ParamType[int | str]):
    """A rank, or `all`."""

    name = "rank"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """From the option's text."""
        text = str(value)
        if text == "all":
            return text
        if not (text.isascii() and text.isdigit()):
            self.fail(f"{text!r} is no rank: 0, 1, ... or all", param, ctx)
        return int(text)


@verb("logs", examples=EXAMPLES)
@click.argument("ref", metavar="JOB", type=JOB)
@click.option("-f", "--follow", "follows", is_flag=True, help="Go on until the job has ended, into later attempts.")
@click.option("--rank", type=RankType(), default="all", metavar="N|all", help="Of one rank; left out: of all.")
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Of this attempt; left out: of the last one.")
@click.option("--tail", type=click.IntRange(0), metavar="LINES", help="Only the last lines of each rank.")
@pass_session
def logs(
    session: Session,
    *,
    ref: str,
    follows: bool,
    rank: int | Literal["all"],
    attempt: int | None,
    tail: int | None,
) -> None:
    """Print a job's output, while it runs or after.

    With several ranks each line is marked with its own. `-f` also says, on standard error, what a job that prints
    nothing is waiting for; it exits with 0 however the job ends, unlike `gpusched run`.
    """
    client = session.client()
    job = client.job(ref, user=owner_of(ref, session))
    marked = rank == "all" and job["resources"]["num_nodes"] > 1
    with session.narrator(silent=not follows) as narrator:
        printer = Printer(narrator, marked=marked)
        if follows:
            end = follow(
                session.client, job["id"], narrator=narrator, printer=printer, rank=rank, attempt=attempt, tail=tail
            )
            narrator.say("")
            narrator.note(ended(job, end["end"], end.get("exit_code"), end.get("message") or ""))
            return
        if not job["attempt"]:
            click.echo(
                f"job {job['id']} ({safe(job['name'])}) is {job['state']} and has not started: no output", err=True
            )
            return
        place = Place()
        for line in client.logs(job["id"], rank=rank, attempt=attempt, tail=tail):
            if "text" in line:
                printer.piece(line["rank"], place.fresh(line["rank"], line["offset"], line["text"]))
            elif "error" in line:
                printer.finish()
                raise error_of(line["error"])
        printer.finish()
