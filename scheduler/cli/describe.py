"""`gpusched describe`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from ..output import (
    SCHEMA_VERSION,
    Style,
    clock,
    hours,
    number,
    percent,
    relative,
    safe,
    span,
    to_json,
    to_lines,
    to_yaml,
)
from .job_columns import elapsed, nodes_of
from .refs import JOB, check_named, each, named, owner_of
from .session import Session, pass_session
from .verb import form_option, selector, verb

JSON = dict[str, Any]

LINKS = {"dashboard": "Ray dashboard", "job": "Control plane there", "token": "Its token is in"}
"""What the links are to, for people."""

NODE = "node/"
"""What stands before the name of a node, where jobs are named too."""

EXAMPLES = """
gpusched describe 12
gpusched describe @   # my last job
gpusched describe train -o json
gpusched describe node/n1   # a node with its history: as `gpusched nodes n1`
"""


@verb("describe", examples=EXAMPLES)
@click.argument("refs", nargs=-1, metavar="JOB...", type=JOB)
@selector
@form_option
@pass_session
def describe(session: Session, *, refs: tuple[str, ...], labels: dict[str, str], style: Style) -> None:
    """Show all that is known of a job.

    What was asked, where it stands and why, its attempts with the GPUs of each rank, its journal, what it has used, and
    links to the Ray dashboard. Values of secrets are never shown.
    """
    check_named(refs, labels)
    if refs and all(ref.startswith(NODE) for ref in refs):
        from .nodes import describe_nodes  # noqa: PLC0415 - jobs are asked for more often

        describe_nodes(session, tuple(ref.removeprefix(NODE) for ref in refs), style)
        return
    client = session.client()

    def look(ref: str) -> JSON:
        job = client.job(ref, user=owner_of(ref, session))
        return {**job, "events": client.events(job["id"])}

    jobs = each(named(session, client, refs, labels), look)
    if style.form in {"json", "yaml"}:
        document = {"schema_version": SCHEMA_VERSION, "jobs": jobs}
        sys.stdout.write(to_json(document) if style.form == "json" else to_yaml(document))
    elif style.form == "jsonl":
        sys.stdout.write(to_lines(jobs))
    elif style.form == "name":
        sys.stdout.write("".join(f"{safe(job['name'])}\n" for job in jobs))
    elif style.form == "csv":
        raise click.UsageError(
            "a description is no table: -o json, or `gpusched ps -o csv`", click.get_current_context()
        )
    else:
        sys.stdout.write("\n".join("\n".join(lines(job, time.time())) + "\n" for job in jobs))


def lines(job: JSON, now: float) -> Iterator[str]:
    """A job for people."""
    facts = dict(_facts(job, now))
    width = max(map(len, facts)) + 2
    for label, value in facts.items():
        if value:
            yield f"{label + ':':<{width}}{safe(value)}"
    yield from _attempts(job, now)
    yield from _spec(job)
    yield from _events(job)


def _facts(job: JSON, now: float) -> Iterator[tuple[str, str]]:
    need = job["resources"]
    yield "Job", f"{job['id']} ({job['uid']})"
    yield "Name", job["name"]
    yield "User", job["user"]
    yield "Queue", f"{job['queue']}, priority {job['priority']}"
    code = "" if job["exit_code"] is None else f", exit code {job['exit_code']}"
    yield "State", f"{job['state']}{code}"
    reason = f"{job['reason']}: " if job["reason"] else ""
    yield "Why", f"{reason}{job['message']}".removesuffix(": ")
    yield "Position", "" if job["position"] is None else str(job["position"])
    extra = [f"{number(need['cpus'])} CPU{'' if need['cpus'] == 1 else 's'}"] if need["cpus"] else []
    extra += [f"{need['memory'] / 2**30:.4g} GiB"] if need["memory"] else []
    yield "Request", ", ".join([job["request"], *(f"{text} per node" for text in extra)])
    yield "Nodes", nodes_of(job)
    yield "Avoids", ", ".join(need.get("avoid") or ())
    yield "Submitted", _when(job["submitted"], now)
    yield "Started", _when(job["started"], now)
    yield "Ended", _when(job["ended"], now)
    yield "Elapsed", span(elapsed(job, now))
    yield "Time limit", span(job["limit"])
    yield "Estimate", span(job["estimate"])
    used = job.get("usage") or {}
    yield "GPU-hours", _usage(used)
    done = [event["data"]["fraction"] for event in job.get("events", ()) if event["kind"] == "progressed"]
    yield "Progress", f"{percent(100 * done[-1])}, as the job says" if done else ""
    yield "Labels", ", ".join(f"{key}={value}" for key, value in job["labels"].items())
    for name, url in (job.get("links") or {}).items():
        yield LINKS.get(name, name.replace("_", " ").capitalize()), url


def _when(text: str | None, now: float) -> str:
    return f"{clock(text)} UTC, {relative(text, now)}" if text else ""


def _usage(used: JSON) -> str:
    allocated = used.get("gpu_hours_allocated")
    if not allocated:
        return ""
    if used.get("gpu_hours_used") is None:
        return f"{hours(allocated)} allocated; use was not measured"
    return f"{hours(allocated)} allocated, {hours(used['gpu_hours_used'])} used ({percent(used.get('utilization'))})"


def _attempts(job: JSON, now: float) -> Iterator[str]:
    for attempt in job.get("attempts", ()):
        result = attempt["result"] or ("running" if attempt["started"] else "starting")
        code = "" if attempt["exit_code"] is None else f", exit code {attempt['exit_code']}"
        yield ""
        yield safe(f"Attempt {attempt['attempt']}: {result}{code}, placed {_when(attempt['placed'], now)}")
        if attempt.get("cause_detail"):
            where = f" on {attempt['failed_node']}" if attempt["failed_node"] else ""
            yield safe(f"  cause: {attempt['cause']}{where}: {attempt['cause_detail']}")
        if attempt["message"] and attempt["message"] != attempt.get("cause_detail"):
            yield f"  {safe(attempt['message'])}"
        if attempt["checkpoint"]:
            yield f"  checkpoint: {safe(str(attempt['checkpoint']))}"
        if attempt["lost_work"]:
            yield f"  lost work: {span(attempt['lost_work'])} of GPU time"
        for rank in attempt["ranks"]:
            gpus = ",".join(map(str, rank.get("gpus") or ())) or "-"
            if rank["rank"] == 0 and not attempt["ended"]:
                group = rank.get("group") or f"gs:{job['id']}:{attempt['attempt']}"
                yield f"  in Ray: placement group {safe(group)}, one actor a rank"
            pid = f", pid {rank['pid']}" if rank.get("pid") else ""
            log = f", log {rank['log']}" if rank.get("log") else ""
            yield safe(f"  rank {rank['rank']}: {rank['node']}, GPU {gpus}{pid}{log}")
            dashboard = (job.get("links") or {}).get("dashboard")
            if dashboard and rank.get("actor") and not attempt["ended"]:
                yield safe(f"    {dashboard}/#/actors/{rank['actor']}")


def _spec(job: JSON) -> Iterator[str]:
    if job.get("spec"):
        yield ""
        yield "Spec, as resolved:"
        for line in to_yaml(job["spec"]).splitlines():
            yield f"  {safe(line)}"


def _events(job: JSON) -> Iterator[str]:
    if job.get("events"):
        yield ""
        yield "Events:"
    for event in job.get("events", ()):
        attempt = f" (attempt {event['attempt']})" if event["attempt"] else ""
        data = event["data"]
        details = "" if not isinstance(data, dict) or event["kind"] == "submitted" else _details(data)
        yield safe(f"  {clock(event['time'])}  {event['kind']}{attempt}{details}")


def _details(data: JSON) -> str:
    """What an event says besides its kind: short values, as they are."""
    words = [f"{key}={value}" for key, value in data.items() if isinstance(value, str | int | float) and value != ""]
    text = " ".join(words)
    return f"  {text[:200]}" if text else ""
