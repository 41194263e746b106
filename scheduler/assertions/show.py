"""Outcomes for people (a table), for programs (JSON) and for CI (JUnit XML)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any
from xml.etree import ElementTree as ET

from ..output import SCHEMA_VERSION, safe
from ..report.metric import percent
from ..report.run import cluster_in_words
from .check import Outcome
from .suite import Bound, Suite

JSON = dict[str, Any]

_TENFOLD = 10
"""From here on per cent say nothing."""


def row_of(outcome: Outcome) -> JSON:
    """An outcome as JSON-able values: times in seconds, GPU time in GPU-seconds, shares of 1."""
    assertion = outcome.assertion
    selection = assertion.selection
    return {
        "name": assertion.name,
        "line": assertion.line,
        "policy": outcome.policy,
        "metric": assertion.measure.name,
        "unit": assertion.measure.kind.name,
        "queue": selection.queue,
        "user": selection.user,
        "gpus": None if selection.gpus is None else list(selection.gpus),
        "window": assertion.window.text,
        "passed": outcome.passed,
        "measured": outcome.value,
        "bound": outcome.bound.word,
        "than": outcome.bound.than or None,
        "other": outcome.other,
        "limit": outcome.limit,
        "margin": outcome.margin,
        "margin_share": outcome.share,
        "who": outcome.who or None,
        "why": outcome.why or None,
        "seed": outcome.seed,
        "seeds": outcome.seeds,
        "seeds_failed": outcome.failed,
    }


def measured(outcome: Outcome) -> str:
    """The value in words."""
    return "-" if outcome.value is None else outcome.assertion.measure.kind.text(outcome.value)


def bound(outcome: Outcome) -> str:
    """What it is held against, in words."""
    told = _bound(outcome.bound)
    text = outcome.assertion.measure.kind.text
    if not outcome.bound.than:
        return f"{told} {text(outcome.bound.number)}"
    return told if outcome.limit is None else f"{told}: {text(outcome.limit)}"


def _bound(held: Bound) -> str:
    if not held.than:
        return held.word.replace("_", " ")
    how, _, worse = held.word.rpartition("_")
    return f"{how.replace('_', ' ')} {100 * held.number:g}% {worse} than {held.than}"


def verdict(outcome: Outcome) -> str:
    """How far off it is, or how much there is to spare; who it is about; in how many seeds it fails."""
    if outcome.why:
        parts = [outcome.why]
    elif outcome.margin is None:
        parts = []
    else:
        amount = outcome.assertion.measure.kind.text(abs(outcome.margin))
        part = abs(outcome.share) if outcome.share is not None else math.inf
        share = f" ({percent(part)})" if part < _TENFOLD else ""
        parts = [f"{amount}{share} {'to spare' if outcome.passed else 'off'}", outcome.who]
    if outcome.seeds > 1:
        told = f"fails in {outcome.failed} of {outcome.seeds} seeds, " if outcome.failed else ""
        parts.append(f"{told}worst in seed {outcome.seed}")
    return "; ".join(filter(None, parts))


def document(suite: Suite, outcomes: Sequence[Outcome]) -> JSON:
    """All outcomes as one JSON document."""
    return {
        "schema_version": SCHEMA_VERSION,
        "units": {"time": "s", "GPU time": "GPU-seconds", "share": "0..1"},
        "file": suite.file,
        "trace": PurePath(suite.trace).name,
        "cluster": cluster_in_words(suite.nodes),
        "estimates": suite.estimates,
        "passed": sum(outcome.passed for outcome in outcomes),
        "failed": sum(not outcome.passed for outcome in outcomes),
        "assertions": [row_of(outcome) for outcome in outcomes],
    }


def junit(suite: Suite, outcomes: Sequence[Outcome], seconds: float) -> str:
    """All outcomes as JUnit XML: a test suite a policy, a test case an assertion."""
    failed = sum(not outcome.passed for outcome in outcomes)
    totals = {"tests": str(len(outcomes)), "failures": str(failed), "errors": "0", "time": f"{seconds:.3f}"}
    root = ET.Element("testsuites", {"name": safe(suite.file), **totals})
    for policy in dict.fromkeys(outcome.policy for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.policy == policy]
        counts = {"tests": str(len(own)), "failures": str(sum(not one.passed for one in own)), "errors": "0"}
        group = ET.SubElement(root, "testsuite", {"name": safe(policy), **counts, "skipped": "0"})
        facts = ET.SubElement(group, "properties")
        for name, value in (("trace", suite.trace), ("cluster", cluster_in_words(suite.nodes))):
            ET.SubElement(facts, "property", {"name": name, "value": safe(value)})
        for outcome in own:
            _case(group, suite, outcome)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _case(group: ET.Element, suite: Suite, outcome: Outcome) -> None:
    about = {
        "name": safe(outcome.assertion.name),
        "classname": safe(f"{PurePath(suite.file).stem}.{outcome.policy}"),
        "file": safe(suite.file),
        "line": str(outcome.assertion.line),
    }
    case = ET.SubElement(group, "testcase", about)
    told = f"measured {measured(outcome)}, {bound(outcome)}"
    if outcome.passed:
        ET.SubElement(case, "system-out").text = safe(f"{told}: {verdict(outcome)}")
        return
    failure = ET.SubElement(case, "failure", {"type": "assertion", "message": safe(told)})
    failure.text = safe(verdict(outcome))
