"""One self-contained HTML page of one or more runs: it works offline, prints, and asks no other host for anything.

Names of jobs, users, nodes and files come from strangers: they are escaped where they are markup, and the page's own
security policy lets no script run but the one that is hashed into it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from string import Template

from ...jobs.traces.trace import counted
from .metric import METRICS, SPEED, Metric, best, count, duration, shown
from .page_data import page_data
from .run import Run
from .summary import Summary

WEB = Path(__file__).parent / "web"
SCRIPTS = ("report.js", "report_compare.js", "report_save.js", "report_gantt.js")
NAMED = 12
"""Unfinished or rejected jobs that a note names before it only counts them."""
SERIES_COLOURS = 8


def page(runs: Sequence[Run], summaries: Sequence[Summary], *, timing: bool = False) -> str:
    """The page, as HTML text. `summaries` are those of `runs`, in the same order.

    The same input gives the same bytes; with `timing` the wall time of the replay is among the figures, and it does
    not. 55,000 jobs under 3 policies are about 2 MB; from 220,000 bars on, the Gantt shows occupancy alone.

    Raises:
        ValueError: no run, or not one summary for each.
    """
    if not runs or len(runs) != len(summaries):
        raise ValueError(f"a page needs one summary a run and at least one; got {len(runs)} and {len(summaries)}")
    script = "\n".join((WEB / name).read_text(encoding="utf-8") for name in SCRIPTS)
    metrics = shown((*METRICS, *SPEED) if timing else METRICS, summaries)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template((WEB / "report.html").read_text(encoding="utf-8")).substitute(
        title=escape(
            f"{', '.join(_once(s.policy for s in summaries))} on {', '.join(_once(s.trace for s in summaries))}"
        ),
        script_hash=f"sha256-{digest}",
        style=(WEB / "report.css").read_text(encoding="utf-8"),
        facts=_facts(summaries),
        notes=_notes(summaries),
        summary=_summary_table(summaries, [metric for metric in metrics if not metric.detail], "summary"),
        details=_details(summaries, [metric for metric in metrics if metric.detail]),
        footer="Made by gpusched. This page is complete in itself: it loads nothing from anywhere.",
        data=_as_script(page_data(runs, summaries)),
        script=script,
    )


def _as_script(value: object) -> str:
    """JSON that cannot end the script element that holds it, nor be taken for markup."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII: no line break but \n
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _facts(summaries: Sequence[Summary]) -> str:
    jobs = "; ".join(_once(f"{count(s.submitted)} submitted, {count(s.finished)} finished" for s in summaries))
    facts = {
        "Trace": ", ".join(_once(s.trace for s in summaries)),
        "Cluster (nodes x GPUs)": "; ".join(_once(f"{s.cluster} = {count(s.gpus)} GPUs" for s in summaries)),
        "Jobs": jobs,
        "Policies": ", ".join(s.policy for s in summaries),
    }
    if any(s.window != "full" for s in summaries):
        facts["Window"] = ", ".join(_once(s.window for s in summaries))
    if makespans := sorted(s.makespan for s in summaries if s.makespan is not None):
        facts["Makespan"] = " to ".join(_once((duration(makespans[0]), duration(makespans[-1]))))
    return "\n".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts.items())


def _notes(summaries: Sequence[Summary]) -> str:
    """What a reader must know before believing a figure, once each."""
    notes: list[str] = []
    for summary in summaries:
        notes += summary.notes
        if summary.unfinished:
            notes.append(
                f"{summary.policy}: {counted(len(summary.unfinished), 'jobs')} had not ended and are in no JCT: "
                + _named(summary.unfinished)
            )
        if summary.rejected:
            refused = [f"{name} ({why})" for name, why in summary.rejected]
            verb = "was" if len(refused) == 1 else "were"
            notes.append(f"{counted(len(refused), 'jobs')} {verb} rejected: {_named(refused)}")
    items = "".join(f"<li>{escape(note)}</li>" for note in _once(notes))
    return f'<ul class="notes">{items}</ul>' if items else ""


def _named(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {count(more)} more" if more > 0 else "")


def _details(summaries: Sequence[Summary], metrics: Sequence[Metric]) -> str:
    if not metrics:
        return ""
    return f"<details><summary>More figures</summary>{_summary_table(summaries, metrics, 'details')}</details>"


def _summary_table(summaries: Sequence[Summary], metrics: Sequence[Metric], name: str) -> str:
    head = "".join(
        f'<th scope="col"><span class="swatch" style="background:var(--p{i % SERIES_COLOURS})"></span>'
        f"{escape(s.policy)}</th>"
        for i, s in enumerate(summaries)
    )
    parts = [f'<table id="{name}"><thead><tr><th></th><th></th>{head}</tr></thead>']
    for section, group in groupby(metrics, key=lambda metric: metric.section):
        rows = list(group)
        parts.append("<tbody>")
        for i, metric in enumerate(rows):
            title = f'<th scope="rowgroup" class="group" rowspan="{len(rows)}">{escape(section)}</th>' if i == 0 else ""
            parts.append(
                f'<tr>{title}<th scope="row" title="{escape(metric.meaning)}">{escape(metric.label)}</th>'
                f"{_cells(metric, summaries)}</tr>"
            )
        parts.append("</tbody>")
    return "\n".join((*parts, "</table>"))


def _cells(metric: Metric, summaries: Sequence[Summary]) -> str:
    winners = best(metric, summaries)
    cells = []
    for i, summary in enumerate(summaries):
        value = metric.value(summary)
        text = "-" if value is None else escape(metric.text(value))
        mark = "★" if i in winners else ""
        cells.append(f'<td{" class=best" if mark else ""}>{text}<span class="mark">{mark}</span></td>')
    return "".join(cells)
