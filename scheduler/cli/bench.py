"""`gpusched bench`, published experiments as commands, and `bench fgd`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..output import Column, Listing, Style
from .bench_tiresias import tiresias
from .progress import Bar
from .session import Session, pass_session
from .verb import SETTINGS, output_options, verb

if TYPE_CHECKING:
    from ...jobs.errors import GpuschedError
    from ..bench.openb import Inputs

JSON = dict[str, Any]

FGD = """
gpusched bench fgd
gpusched bench fgd --nodes openb_node_list_gpu_node.csv --pods openb_pod_list_default.csv --html fgd.html
gpusched bench fgd --nodes nodes.csv --pods pods.csv --rules fgd,fgd_random_ties,tetris -o json
gpusched bench fgd --nodes nodes.csv --pods pods.csv --curves -o csv
"""


@click.group("bench", context_settings=SETTINGS)
def bench() -> None:
    """Repeat published experiments and print their figures."""


@verb("fgd", examples=FGD)
@click.option("--nodes", metavar="FILE", help="Nodes, as openb_node_list_*.csv of Alibaba's cluster-trace-gpu-v2023.")
@click.option("--pods", metavar="FILE", help="Pods to draw from, as openb_pod_list_*.csv of the same trace.")
@click.option("--rules", metavar="A,B", help="Placements by name; left out: the six rules of the paper.")
@click.option("--seeds", type=click.IntRange(1), default=10, show_default=True, metavar="N", help="Runs of each rule.")
@click.option("--first-seed", type=int, default=42, show_default=True, metavar="N", help="The others follow it.")
@click.option(
    "--load",
    type=click.FloatRange(0, 100, min_open=True),
    default=1.3,
    show_default=True,
    metavar="SHARE",
    help="GPUs asked for in the end, of those there are.",
)
@click.option(
    "--cover",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.95,
    show_default=True,
    metavar="SHARE",
    help="Fragments are those for the most popular classes that make up this share of the pods.",
)
@click.option(
    "--ties", type=click.Choice(["name", "random"]), default="name", show_default=True, help="Between equal nodes."
)
@click.option("--cpu-nodes", is_flag=True, help="Keep nodes without a GPU; pods without one may go there.")
@click.option("--curves", is_flag=True, help="A row for each whole percent of the load instead of one a rule.")
@click.option("--html", metavar="FILE", help="Write a page with the curves and the table.")
@click.option("--figures", metavar="FOLDER", help="Write the curves as SVG.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but the figures.")
@output_options
@pass_session
def fgd(
    session: Session,
    /,
    *,
    nodes: str | None,
    pods: str | None,
    rules: str | None,
    cpu_nodes: bool,
    curves: bool,
    html: str | None,
    figures: str | None,
    quiet: bool,
    style: Style,
    **options: Any,  # noqa: ANN401 - click's
) -> None:
    """Fill a cluster by each rule of the paper on FGD (ATC 2023).

    "Beware of Fragmentation", figures 7 and 9.

    The inflation experiment: the pods of the trace in random order, then more drawn from it, until they ask for 130 %
    of the GPUs. One after another is placed, or dropped when it fits nowhere; none ever leaves. Printed are the GPUs
    allocated when as many were asked for as there are, and at the end; the share of idle GPUs that are fragments; and
    how many pods were dropped: means over seeds, with 95 % confidence intervals. Without files it runs on a small
    made-up sample.

    \b
    The six rules, by our names: random, dot_product, gpu_clustering, gpu_packing, vector_best_fit, fgd.
    What differs from the authors' simulator is in docs/bench.md.
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from ..bench.fgd import RULES, Asked, run  # noqa: PLC0415 - the help does not need it
    from ..bench.fgd import rows as rows_of  # noqa: PLC0415 - likewise

    if (nodes is None) != (pods is None):
        raise click.UsageError("give both --nodes and --pods, or neither for the sample", click.get_current_context())
    _check_writable(html, figures)
    chosen = tuple(dict.fromkeys(filter(None, (rules or ",".join(RULES)).split(","))))
    inputs = _inputs(nodes, pods, cpu_nodes=cpu_nodes)
    first, count = options.pop("first_seed"), options.pop("seeds")
    asked = Asked(chosen, tuple(range(first, first + count)), **options)
    with Bar(session, "bench fgd", silent=quiet, unit="runs") as bar:
        rows = rows_of(run(inputs, asked, bar.at))
    about = {
        "nodes": len(inputs.nodes),
        "gpus": inputs.capacity // 1000,
        "pods": len(inputs.pods),
        "load": asked.load,
        "cover": asked.cover,
        "ties": asked.ties,
    }
    title = f"{about['gpus']:,} GPUs on {about['nodes']:,} nodes, {about['pods']:,} pods to draw from"
    if style.form in {"table", "wide"} and not quiet:
        click.echo(title)
    if curves:
        points = [point for row in rows for point in row["curve"]]
        session.show(Listing("curves", CURVE_COLUMNS, points, name="rule", extra=about), style)
    else:
        session.show(Listing("rules", COLUMNS, rows, name="rule", extra=about), style)
    if not quiet:
        for note in inputs.notes:
            click.echo(f"note: {note}", err=True)
    _write(rows, title, inputs, html, figures)


def _inputs(nodes: str | None, pods: str | None, *, cpu_nodes: bool) -> Inputs:
    from tempfile import TemporaryDirectory  # noqa: PLC0415 - the help does not need it

    from ..bench.openb import read_inputs  # noqa: PLC0415 - likewise
    from ..bench.sample import write_sample  # noqa: PLC0415 - likewise

    if nodes is not None and pods is not None:
        return read_inputs(nodes, pods, cpu_nodes=cpu_nodes)
    with TemporaryDirectory() as folder:
        made = write_sample(Path(folder))
        return read_inputs(str(made[0]), str(made[1]), cpu_nodes=cpu_nodes)


def _check_writable(html: str | None, figures: str | None) -> None:
    """What could not be written in the end must be known before the runs."""
    for file, folder in ((html, None), (figures, figures)):
        if file is None:
            continue
        path = Path(file) if folder is None else Path(folder) / ".gpusched"
        try:
            if folder is not None:
                Path(folder).mkdir(parents=True, exist_ok=True)
            was_there = path.exists()
            with path.open("ab"):
                pass
            if not was_there:
                path.unlink()
        except OSError as error:
            raise _unwritable(file, error) from error


def _unwritable(file: str, error: OSError) -> GpuschedError:
    from ...jobs.errors import GpuschedError  # noqa: PLC0415 - the help does not need it

    return GpuschedError(f"{file}: cannot be written: {error.strerror or error}", hint="check the path and the disk")


def _write(rows: list[JSON], title: str, inputs: Inputs, html: str | None, figures: str | None) -> None:
    from ..bench.chart import PANELS, page, svg  # noqa: PLC0415 - the help does not need it

    files: dict[str, str] = {}
    if html:
        files[html] = page(rows, f"Filling a cluster: {title}", inputs.notes)
    if figures:
        files |= {str(Path(figures) / f"{panel.key}.svg"): svg(rows, panel) for panel in PANELS}
    for file, text in files.items():
        try:
            Path(file).write_text(text, encoding="utf-8")
        except OSError as error:
            raise _unwritable(file, error) from error
        click.echo(f"wrote {file}", err=True)


def _figure(key: str, *, heading: str, share: bool = True) -> Column:
    """A mean with its interval; machines get the mean alone, and the half width under `KEY_half`."""

    def value(row: JSON) -> float | None:
        return None if row[key] is None else float(row[key]["mean"])

    def shown(row: JSON) -> str:
        from ..bench.chart import text  # noqa: PLC0415 - the help does not need it

        return text(row[key], percent=share)

    return Column(key, value, shown, right=True, heading=heading)


def _half(key: str) -> Column:
    def value(row: JSON) -> float | None:
        return None if row[key] is None else row[key]["half"]

    return Column(f"{key}_half", value, wide=True, right=True)


COLUMNS = (
    Column("rule", lambda row: row["rule"]),
    Column("paper", lambda row: row["paper"], heading="IN THE PAPER"),
    Column("seeds", lambda row: row["seeds"], right=True),
    _figure("allocation_at_full_load", heading="ALLOCATED AT 100 %"),
    _half("allocation_at_full_load"),
    _figure("allocation_at_end", heading="AT THE END"),
    _half("allocation_at_end"),
    _figure("fragmentation_rate_at_full_load", heading="FRAGMENTS AT 100 %"),
    _half("fragmentation_rate_at_full_load"),
    _figure("pods", heading="PODS", share=False),
    _figure("dropped", heading="DROPPED", share=False),
)
CURVE_COLUMNS = (
    Column("rule", lambda row: row["rule"]),
    Column("load", lambda row: row["load"], right=True),
    *(
        column
        for key in ("allocation", "fragmentation_rate", "fragments")
        for column in (_figure(key, heading=key.replace("_", " ").upper()), _half(key))
    ),
)

bench.add_command(fgd)
bench.add_command(tiresias)
