"""`gpusched explain`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from ..output import SCHEMA_VERSION, Style, relative, safe, to_json, to_lines, to_yaml
from .preemptions import preemption_lines, preemptions
from .refs import JOB, check_named, each, named, owner_of
from .session import Session, pass_session
from .verb import form_option, selector, verb

JSON = dict[str, Any]

_NO_ESTIMATE = {
    "Infeasible": "never, as long as the cluster stays as it is",
    "Held": "not before it is released",
    "ScalingUp": "not known before the cluster has nodes",
    "QueueNotFound": "not before there is such a queue again",
    "QueuePaused": "not before the queue goes on",
    "QuotaExceeded": "not before its queue may have more",
    "UserLimit": "not before the user holds less",
    "NodesDraining": "not before these nodes take work again",
    "NodesUnhealthy": "not before these nodes are back",
    "BeginTime": "not known before it is in line again",
}
"""What keeps a start from being estimated, and what is said instead; the first that applies."""

EXAMPLES = """
gpusched explain 12
gpusched why @ -o json
gpusched explain --preempted 12     # why it had to give its GPUs back
"""


@verb("explain", examples=EXAMPLES)
@click.argument("refs", nargs=-1, metavar="JOB...", type=JOB)
@selector
@click.option("--preempted", is_flag=True, help="Say who took its GPUs back, when, and what work that cost.")
@form_option
@pass_session
def explain(session: Session, *, refs: tuple[str, ...], labels: dict[str, str], preempted: bool, style: Style) -> None:
    """Say why a job waits, until when, and what would help.

    Every reason that applies, with its numbers, the most fundamental first; the jobs ahead; and smaller requests that
    would start now, each tried out. Also `gpusched why`.
    """
    check_named(refs, labels)
    client = session.client()
    if preempted:
        found = each(
            named(session, client, refs, labels, all_states=True),
            lambda ref: preemptions(client.job(ref, user=owner_of(ref, session)), client.events),
        )
    else:
        found = each(named(session, client, refs, labels), lambda ref: client.explain(ref, user=owner_of(ref, session)))
    if style.form in {"json", "yaml"}:
        document = {"schema_version": SCHEMA_VERSION, "explanations": found}
        sys.stdout.write(to_json(document) if style.form == "json" else to_yaml(document))
    elif style.form == "jsonl":
        sys.stdout.write(to_lines(found))
    elif style.form in {"csv", "name"}:
        raise click.UsageError("an explanation is no table: -o json or yaml", click.get_current_context())
    else:
        told = preemption_lines if preempted else lines
        sys.stdout.write("\n".join("\n".join(told(one, time.time())) + "\n" for one in found))


def lines(said: JSON, now: float) -> Iterator[str]:
    """An explanation for people."""
    yield from _reasons(said)
    yield from _help(said)
    if said.get("eta"):
        yield safe(f"expected to start {relative(said['eta']['time'], now)}: {said['eta']['basis']}")
    elif said["reasons"]:
        yield f"expected to start: {_unknown(said['reasons'])}"
    if said.get("promised"):
        yield safe(f"promised to start by {relative(said['promised'], now)}, if no job runs longer than was said")
    decision = said.get("decision")
    if decision:
        behind = f", behind job {decision['behind']}" if decision.get("behind") else ""
        yield safe(f"decided {relative(decision['since'], now)} by {decision['policy']}: {decision['reason']}{behind}")


def _reasons(said: JSON) -> Iterator[str]:
    where = f", position {said['position']}" if said.get("position") else ""
    yield safe(f"job {said['job']} ({said['name']}): {said['state']}{where}")
    reasons = said["reasons"]
    if not reasons:
        yield f"  {safe(said['summary'])}"
    for number, reason in enumerate(reasons, 1):
        yield safe(f"  {number}. {reason['token']}: {reason['message']}")


def _unknown(reasons: list[JSON]) -> str:
    """Why there is no estimate."""
    tokens = {reason["token"] for reason in reasons}
    for token, words in _NO_ESTIMATE.items():
        if token in tokens:
            return words
    return "not known, as too little is known of how long the others run"


def _help(said: JSON) -> Iterator[str]:
    if said.get("ahead"):
        total = said.get("waiting_ahead") or len(said["ahead"])
        yield "ahead of it:"
        for job in said["ahead"]:
            yield safe(f"  job {job['id']} ({job['name']}, {job['user']}): {job['request']}")
        if total > len(said["ahead"]):
            yield f"  and {total - len(said['ahead'])} more"
    if said.get("suggestions"):
        yield "what would help:"
        for one in said["suggestions"]:
            yield safe(f"  {one['change']}: {one['effect']}")
