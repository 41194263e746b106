"""`gpusched bound compute` and `verify`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ..output import SCHEMA_VERSION, number, safe, span, to_json
from .session import Session, pass_session
from .trace_options import trace_options
from .verb import SETTINGS, verb

if TYPE_CHECKING:
    from ...jobs.traces.trace import Trace
    from ..bounds import Bounds

COMPUTE = """
gpusched bound compute trace.csv.gz --nodes 54x8
gpusched bound compute trace.csv.gz --nodes 54x8 --certificate bound.json
gpusched bound compute jobs.csv --nodes 10x8:H100,4x4:A100 --rate H100=2.2 -o json
"""
VERIFY = """
gpusched bound verify bound.json trace.csv.gz
"""
MAKESPAN = {
    "longest": "longest job",
    "area": "GPU time left at each moment",
    "wide": "wide gangs rounded up",
    "nodes": "gangs within nodes rounded up",
}


@click.group("bound", context_settings=SETTINGS)
def bound() -> None:
    """Compute what no schedule can beat, and verify its proof."""


def _rates(_ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in values:
        kind, equals, value = text.partition("=")
        try:
            rate = float(value)
        except ValueError:
            rate = 0.0
        if not (kind and equals and 0 < rate < float("inf")):
            raise click.BadParameter(
                f"{text!r} is not TYPE=RATE with a number above 0, such as A100=1", param=parameter
            )
        found[kind] = rate
    return found


@verb("compute", examples=COMPUTE)
@click.argument("trace", metavar="TRACE")
@click.option("--nodes", metavar="NxG[:TYPE],...", help="The cluster: 54x8, or 10x8:H100,4x4:A100.")
@click.option("--cluster", metavar="FILE", help="The cluster as a YAML or CSV file of nodes.")
@click.option(
    "--rate",
    "rates",
    metavar="TYPE=RATE",
    multiple=True,
    callback=_rates,
    help="Speed of a GPU type, where the trace's run times are at speed 1; may repeat.",
)
@trace_options
@click.option(
    "--certificate",
    "file",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Store the proof of the price bound, for `gpusched bound verify`.",
)
@click.option("-o", "--output", "form", type=click.Choice(["table", "json"]), metavar="FORM", help="table or json.")
@pass_session
def compute(
    session: Session,
    *,
    trace: str,
    nodes: str | None,
    cluster: str | None,
    rates: dict[str, float],
    trace_form: dict[str, Any],
    file: str | None,
    form: str | None,
) -> None:
    """Bound from below what any schedule of a trace could reach.

    Mean and quantiles of JCT, and the makespan. The bounds hold under every policy, also one that knows the future and
    preempts for nothing. They count the jobs that `gpusched simulate` accepts on the same cluster. The greatest of each
    kind is the one to use; it has the star.
    """
    from ...cluster.inventory import read_cluster  # noqa: PLC0415 - the help does not need it
    from ...jobs.traces.catalog import read_trace  # noqa: PLC0415 - likewise
    from ..bounds import lower_bounds, write_certificate  # noqa: PLC0415 - likewise

    if bool(nodes) == bool(cluster):
        problem = (
            "give --nodes or --cluster, not both" if nodes else "say on which cluster: --nodes 54x8, or --cluster FILE"
        )
        raise click.UsageError(problem, click.get_current_context())
    read = read_trace(trace, **trace_form)
    found = lower_bounds(read.jobs, read_cluster(nodes or cluster or ""), rates)
    if file and found.certificate is not None:
        write_certificate(file, found.certificate)
    if (form or session.config["output"]) == "json":
        sys.stdout.write(to_json(_document(read, found)))
    else:
        _print(read, found)
    if file:
        told = f"wrote {file}" if found.certificate is not None else f"did not write {file}: there is no job to bound"
        click.echo(told, err=True)


def _document(read: Trace, found: Bounds) -> dict[str, Any]:
    names = {job.id: job.name for job in read.jobs}
    return {
        "schema_version": SCHEMA_VERSION,
        "trace": read.name,
        "jobs": found.jobs,
        "left_out": [names[number] for number in found.left_out],
        "gpus": found.gpus,
        "jct_mean": {"best": found.jct, **found.jct_by_name},
        "jct_quantiles": dict(found.jct_quantiles),
        "makespan": {"best": found.makespan, **found.makespan_by_name},
        "notes": read.remarks(),
    }


def _print(read: Trace, found: Bounds) -> None:
    from ..bounds import JCT  # noqa: PLC0415 - loaded by now

    left_out = len(found.left_out)
    without = f" ({left_out:,} left out: no node could hold {'it' if left_out == 1 else 'them'})" if left_out else ""
    click.echo(f"{safe(read.name)} on {found.gpus:,} GPUs: lower bounds for {found.jobs:,} jobs{without}")
    _section("mean JCT", {f"{key} {JCT[key]}": value for key, value in found.jct_by_name.items()})
    _section("JCT quantiles", dict(found.jct_quantiles), best=False)
    _section("makespan", {MAKESPAN[key]: value for key, value in found.makespan_by_name.items()})
    for remark in read.remarks():
        click.echo(f"note: {safe(remark)}")


def _section(heading: str, values: dict[str, float], *, best: bool = True) -> None:
    if not values:
        return
    click.echo(f"\n{heading}")
    greatest = max(values.values())
    for name, value in values.items():
        star = " *" if best and value == greatest else ""
        click.echo(f"  {name:<30}  {number(value, 1):>14} s  {span(value):>7}{star}")


@verb("verify", examples=VERIFY)
@click.argument("certificate", metavar="CERTIFICATE")
@click.argument("trace", metavar="TRACE")
@trace_options
@click.option("-o", "--output", "form", type=click.Choice(["table", "json"]), metavar="FORM", help="table or json.")
@pass_session
def verify(session: Session, *, certificate: str, trace: str, trace_form: dict[str, Any], form: str | None) -> None:
    """Prove again the bound that a certificate claims.

    From its prices and the trace alone, in whole numbers, without numpy or a solver, by other code than found it. Exits
    with 1 when the certificate is about other jobs, was changed, or claims more than its prices prove.
    """
    from ...jobs.traces.catalog import read_trace  # noqa: PLC0415 - the help does not need it
    from ..bounds.certificate import read_certificate  # noqa: PLC0415 - likewise
    from ..bounds.verify import verify as prove  # noqa: PLC0415 - likewise

    claim = read_certificate(certificate)
    read = read_trace(trace, **trace_form)
    proven = float(prove(claim, read.jobs))
    if (form or session.config["output"]) == "json":
        document = {
            "schema_version": SCHEMA_VERSION,
            "certificate": certificate,
            "trace": read.name,
            "jobs": claim.jobs,
            "left_out": len(claim.left_out),
            "gpus": claim.gpus,
            "claimed": claim.jct_mean,
            "proven": proven,
        }
        sys.stdout.write(to_json(document))
        return
    without = f", {len(claim.left_out):,} left out" if claim.left_out else ""
    click.echo(f"{safe(certificate)} claims a mean JCT of at least {claim.jct_mean:,.6f} s")
    click.echo(f"proven: no schedule of the {claim.jobs:,} jobs of {safe(read.name)}{without}")
    click.echo(f"on {claim.gpus:,} GPUs has a mean JCT below {proven:,.6f} s ({span(proven)})")


for _command in (compute, verify):
    bound.add_command(_command)
