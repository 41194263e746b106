"""A study as one HTML page: the table, every figure, and what a reader must know. It loads nothing from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from itertools import groupby

from ..report.page import WEB
from .combine import Group, leaders
from .figures import as_svg
from .show import columns, figure_text, heading, legend, one_each, rivals, swept_text

_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}
th, td {{ padding: 3px 9px; }}
thead th {{ white-space: nowrap; overflow-wrap: normal; }}
.shots {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(360px, 1fr)); gap: 16px 24px; }}
.shots img {{ width: 100%; background: #ffffff; border-radius: 5px; }}
</style></head><body>
"""


def page(groups: Sequence[Group], title: str, notes: Sequence[str]) -> str:
    """The page, as HTML text: the same study, the same bytes.

    Args:
        groups: at least one.
        title: what was run, in words.
        notes: what a reader must know before believing a figure.
    """
    parts = [_HEAD.format(title=escape(title), style=(WEB / "report.css").read_text("utf-8"))]
    parts.append(f"<h1>{escape(title)}</h1>")
    if notes:
        parts.append(f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>')
    parts.append(f'<section><h2>Figures</h2><div class="wide">{_table(groups)}</div>')
    parts += [f'<p class="hint">{escape(line)}</p>' for line in legend(groups, star="★")]
    parts.append("</section>")
    parts.append('<section><h2>Charts</h2><div class="shots">')
    for name, svg in as_svg(groups):
        data = base64.b64encode(svg).decode()
        parts.append(
            f'<figure><img alt="{escape(name)}" src="data:image/svg+xml;base64,{data}">'
            f"<figcaption><small>{escape(name)}</small></figcaption></figure>"
        )
    parts.append("</div></section><footer>Made by gpusched. This page is complete in itself.</footer></body></html>\n")
    return "\n".join(parts)


def _table(groups: Sequence[Group]) -> str:
    metrics = columns(groups)
    swept = [key for key, _ in groups[0].point]
    one_trace, one_cluster = one_each(groups)
    places = [*([] if one_trace else ["trace"]), *([] if one_cluster else ["cluster"])]
    names = [*places, *swept, "policy", *(heading(metric) for metric in metrics)]
    rows = [f"<thead><tr>{''.join(f'<th scope=col>{escape(name)}</th>' for name in names)}</tr></thead>"]
    for _, same in groupby(rivals(groups), lambda them: (them[0].trace, them[0].cluster)):
        rows.append("<tbody>")
        for them in same:
            best = {metric.key: leaders(them, metric.key, metric.better) for metric in metrics}
            for i, group in enumerate(them):
                words = [*([] if one_trace else [group.trace]), *([] if one_cluster else [group.cluster])]
                words += [*(swept_text(value) for _, value in group.point), group.policy]
                cells = [f'<th scope="row">{escape(word)}</th>' for word in words]
                for metric in metrics:
                    mark = "★" if i in best[metric.key] else ""
                    text = escape(figure_text(group.figure(metric.key), metric.text))
                    cells.append(f'<td{" class=best" if mark else ""}>{text}<span class="mark">{mark}</span></td>')
                rows.append(f"<tr>{''.join(cells)}</tr>")
        rows.append("</tbody>")
    return f"<table>{''.join(rows)}</table>"
