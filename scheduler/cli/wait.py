"""`gpusched wait`."""

from __future__ import annotations

import time
from typing import Literal

import click

from .follow import exit_code_of
from .refs import JOB, check_named, each, named, owner_of
from .session import Session, pass_session
from .submit import goes_on
from .verb import selector, verb
from .waiting import wait_for

RAN_OUT = 124
"""The exit code of `--timeout`, as timeout(1) has it."""
EXAMPLES = """
gpusched wait 12 && echo it succeeded
gpusched wait 12 13 --timeout 2h
gpusched wait @ --for running
"""


def _seconds(_ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    from ...jobs.units import UnitError, parse_duration  # noqa: PLC0415 - only here

    try:
        return parse_duration(value)
    except UnitError as error:
        raise click.BadParameter(f"{error.message}: {error.hint}", param=parameter) from None


@verb("wait", examples=EXAMPLES)
@click.argument("refs", nargs=-1, metavar="JOB...", type=JOB)
@selector
@click.option(
    "--for", "until", type=click.Choice(["done", "running"]), default="done", show_default=True, help="For what."
)
@click.option("--timeout", callback=_seconds, metavar="TIME", help="Give up after this, with exit code 124.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing.")
@pass_session
@click.pass_context
def wait(
    ctx: click.Context,
    session: Session,
    *,
    refs: tuple[str, ...],
    labels: dict[str, str],
    until: Literal["done", "running"],
    timeout: float | None,
    quiet: bool,
) -> None:
    """Block until jobs have ended, or run.

    Exits with 0 if all succeeded (or run), else with the code of the first one that did not; 124 when the time ran out.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    check_named(refs, labels)
    client = session.client()
    codes: list[int] = []
    with session.narrator(silent=quiet) as narrator:

        def attend(ref: str) -> None:
            try:
                met, job = wait_for(
                    session.client,
                    client,
                    ref,
                    until=until,
                    deadline=deadline,
                    narrator=narrator,
                    user=owner_of(ref, session),
                )
            except KeyboardInterrupt:
                narrator.note("the jobs go on" if len(chosen) > 1 else goes_on({"id": ref}))
                raise
            name = f"job {job['id']} ({job['name']})"
            if not met and job["ended"] is None:
                narrator.note(f"{name} is still {job['state']}")
                codes.append(RAN_OUT)
            else:
                narrator.note(f"{name} is {job['state']}")
                running = met and until == "running"
                codes.append(0 if running else exit_code_of(job["state"], job["exit_code"]))

        chosen = named(session, client, refs, labels)
        each(chosen, attend)
    ctx.exit(next((code for code in codes if code), 0))
