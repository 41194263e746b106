"""`gpusched policy test`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Literal

import click

from ..output import Column, Listing, Style, to_json
from .files import check_writable, write_text
from .progress import Bar
from .session import Session, pass_session
from .trace_options import trace_options
from .verb import verb

if TYPE_CHECKING:
    from ..assertions.check import Outcome

FAILED = 1

EXAMPLES = """
gpusched policy test site.yaml
gpusched policy test site.yaml history.jsonl.gz --policy easy --policy fair
gpusched policy test site.yaml -o junit > report.xml
gpusched policy test site.yaml --junit report.xml
"""


@verb("test", examples=EXAMPLES)
@click.argument("file")
@click.argument("trace", required=False)
@click.option("--policy", "policies", multiple=True, metavar="NAME", help="In place of the file's. May repeat.")
@click.option("--nodes", metavar="NxG[:TYPE],...", help="In place of the file's cluster.")
@click.option("--cluster", metavar="FILE", help="The same as a YAML or CSV file of nodes.")
@trace_options
@click.option("--estimates", type=click.Choice(["exact", "trace", "none"]), help="What policies are told of run times.")
@click.option("--profile", metavar="FILE", help="Costs and failures of the cluster, YAML.")
@click.option("--start-up", metavar="TIME", help="From a start to the first second of work.")
@click.option("--queues", metavar="FILE", help="Queues with weights, quotas and limits, YAML.")
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Of all chance.")
@click.option("--seeds", type=click.IntRange(1), metavar="N", help="N runs, from the seed on; each has to pass.")
@click.option("--window", metavar="WINDOW", help="Jobs that are measured: full, batch:1d..5d, steady:1000..5000.")
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["table", "json", "junit"]),
    metavar="FORM",
    help="table, json, or junit for CI.",
)
@click.option("--junit", "junit_file", metavar="FILE", help="Write JUnit XML as well.")
@click.option("-q", "--quiet", is_flag=True, help="Only what fails.")
@pass_session
def test(
    session: Session,
    /,
    *,
    file: str,
    form: Literal["table", "json", "junit"] | None,
    junit_file: str | None,
    quiet: bool,
    **given: Any,  # noqa: ANN401 - click's
) -> None:
    """Check assertions on a policy, for a site's own CI.

    FILE names what is expected, in YAML: that the 95th percentile of the delay of a queue is below 30 minutes, that
    nobody waits for more than a day, that Jain's index is above 0.9, that nothing gets more than 10 % worse than under
    another policy. It also names the trace (such as one from `gpusched export`), the cluster and the policies; its
    paths start from its own folder, and options go before what it says. docs/policy-tests.md has all metrics.

    \b
    Exit codes: 0 all assertions hold, 1 some do not, 4 the file or what it names is wrong.
    An assertion about no job at all does not hold.
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from ..assertions.check import check  # noqa: PLC0415 - the help does not need it
    from ..assertions.reading import read_suite  # noqa: PLC0415 - likewise
    from ..assertions.show import document, junit  # noqa: PLC0415 - likewise

    if junit_file:
        check_writable(junit_file)
    suite = read_suite(file, _overrides(**given))
    begun = time.perf_counter()
    with Bar(session, "policy test", silent=quiet, unit="runs") as bar:
        outcomes = check(suite, bar.at)
    seconds = time.perf_counter() - begun
    shown = form or (session.config["output"] if session.config["output"] == "json" else "table")
    if shown == "json":
        sys.stdout.write(to_json(document(suite, outcomes)))
    elif shown == "junit":
        sys.stdout.write(junit(suite, outcomes, seconds))
    else:
        _print(session, outcomes, quiet=quiet)
    if junit_file:
        write_text(junit_file, junit(suite, outcomes, seconds))
    if not all(outcome.passed for outcome in outcomes):
        raise click.exceptions.Exit(FAILED)


def _overrides(*, nodes: str | None, cluster: str | None, start_up: str | None, **given: Any) -> Any:  # noqa: ANN401 - Overrides, which is loaded late
    from ..assertions.reading import Overrides  # noqa: PLC0415 - the help does not need it
    from .simulate import seconds  # noqa: PLC0415 - likewise

    if nodes and cluster:
        raise click.UsageError("give --nodes or --cluster, not both", click.get_current_context())
    given["start_up"] = None if start_up is None else seconds(start_up, "--start-up")
    return Overrides(cluster=nodes or cluster, **given)


def _print(session: Session, outcomes: list[Outcome], *, quiet: bool) -> None:
    from ..assertions.show import bound, measured, verdict  # noqa: PLC0415 - machine forms do not need it

    rows = [
        {
            "result": "PASS" if outcome.passed else "FAIL",
            "assertion": outcome.assertion.name,
            "policy": outcome.policy,
            "measured": measured(outcome),
            "bound": bound(outcome),
            "verdict": verdict(outcome),
        }
        for outcome in outcomes
        if not (quiet and outcome.passed)
    ]
    session.show(
        Listing("assertions", COLUMNS, rows, name="assertion"),
        Style(colour=session.colour_on(sys.stdout), width=session.width()),
    )
    failed = sum(not outcome.passed for outcome in outcomes)
    if not quiet:
        click.echo(f"{len(outcomes) - failed:,} passed, {failed:,} failed")


def _colour(text: str) -> str:
    return "green" if text == "PASS" else "red"


COLUMNS = (
    Column("result", lambda row: row["result"], colour=_colour),
    Column("assertion", lambda row: row["assertion"], flexible=True),
    Column("policy", lambda row: row["policy"]),
    Column("measured", lambda row: row["measured"], right=True),
    Column("bound", lambda row: row["bound"]),
    Column("verdict", lambda row: row["verdict"], flexible=True),
)
