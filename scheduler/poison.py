"""Nodes on which different jobs fail for the node's own reasons: the evidence, and when it is enough. Pure.

One job that fails says little: it may be the job. Several different jobs that fail on one node, by causes that point at
the node, say that it is the node. A job that fails on other nodes too is no witness; one that failed here by a cause
that may be either's, and then did its work elsewhere, is one. What is old is forgotten, and so is all when an
administrator resumes the node. Time is handed in, so a simulation and a test see the same as a live cluster.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ..jobs.units import format_duration

BY = "gpusched"
"""Who cordons a poisoned node, where an administrator's name would stand."""
NAMED = 5
"""Failures that are named in words; the journal has all."""


@dataclass(frozen=True, slots=True)
class Rule:
    """When a node counts as poisoned.

    Attributes:
        jobs: different jobs that have to fail there; 0 = nodes are never cordoned for that.
        window: seconds within which they fail.
        share: the most of the cluster's nodes that are cordoned for it at a time; one may always be if others are left.
    """

    jobs: int = 3
    window: float = 3600.0
    share: float = 0.25


class Evidence(NamedTuple):
    """An attempt that failed on a node.

    Attributes:
        node: its name. job, attempt: which. time: when it ended.
        cause: the token of its cause; detail: in words.
    """

    node: str
    job: int
    attempt: int
    time: float
    cause: str
    detail: str

    def to_json(self) -> dict[str, Any]:
        """As the journal has it."""
        return {"job": self.job, "attempt": self.attempt, "cause": self.cause, "why": self.detail, "time": self.time}


class Sentence(NamedTuple):
    """What is found about a node.

    Attributes:
        node: its name. why: the evidence in words. evidence: all of it, the oldest first.
        spared: why it is not cordoned all the same; empty = it is to be.
    """

    node: str
    why: str
    evidence: tuple[Evidence, ...]
    spared: str


class Poison:
    """The evidence of late. Its size is bounded by what fails within the window."""

    def __init__(self, rule: Rule = Rule()) -> None:
        self.rule = rule
        self.fresh = False  # evidence came since `sentences` was asked
        self._against: dict[str, dict[int, Evidence]] = {}  # node -> job -> its latest failure there
        self._hints: dict[int, dict[str, Evidence]] = {}  # job -> node -> a failure that may be the job's own
        self._unsound: dict[int, float] = {}  # jobs that failed on several nodes, and when they did last
        self._forgiven: dict[str, float] = {}  # node -> when it was resumed
        self._spared: dict[str, int] = {}  # node -> failures that were told when it was spared

    def failed(self, found: Evidence, *, points: bool, hints: bool = True) -> None:
        """An attempt failed on a node.

        Args:
            found: which, where and when.
            points: whether its cause is more likely the node's than the job's.
            hints: whether it would be the node's if the job does its work elsewhere.
        """
        if not self.rule.jobs or found.time <= self._forgiven.get(found.node, -math.inf):
            return
        self._forget_old(found.time)
        elsewhere = {node for node, jobs in self._against.items() if found.job in jobs and node != found.node}
        elsewhere |= self._hints.get(found.job, {}).keys() - {found.node}
        if elsewhere or found.job in self._unsound:
            # It fails wherever it runs: it is the job, and none of its failures speaks against a node.
            self._unsound[found.job] = found.time
            self._hints.pop(found.job, None)
            for jobs in self._against.values():
                jobs.pop(found.job, None)
        elif points:
            self._against.setdefault(found.node, {})[found.job] = found
            self.fresh = True
        elif hints:
            self._hints.setdefault(found.job, {})[found.node] = found

    def succeeded(self, job: int, nodes: Iterable[str]) -> None:
        """A job did its work: what failed on other nodes before is told apart from a fault of its own."""
        for node, found in self._hints.pop(job, {}).items():
            if node not in nodes:
                self._against.setdefault(node, {})[job] = found
                self.fresh = True
        self._unsound.pop(job, None)

    def doubts(self, job: int) -> bool:
        """Whether a success of this job would say something."""
        return job in self._hints or job in self._unsound

    def forget(self, node: str, time: float) -> None:
        """An administrator resumed the node: what failed there until then does not count any more."""
        self._against.pop(node, None)
        self._spared.pop(node, None)
        for hints in self._hints.values():
            hints.pop(node, None)
        self._forgiven[node] = time

    def sentences(self, now: float, up: Sequence[str], present: int, cordoned: int) -> list[Sentence]:
        """The nodes with enough evidence against them, the most first.

        Args:
            now: seconds.
            up: names of the nodes that take work.
            present: nodes of the cluster.
            cordoned: of these, the nodes that are cordoned for it already.
        """
        self.fresh = False
        self._forget_old(now)
        enough = [(jobs, node) for node, jobs in self._against.items() if len(jobs) >= self.rule.jobs > 0]
        found: list[Sentence] = []
        left = len(up)
        most = max(1, math.floor(self.rule.share * present))
        for jobs, node in sorted(enough, key=lambda one: (-len(one[0]), one[1])):
            if node not in up:
                continue
            spared = ""
            if left <= 1:
                spared = "it is the last node that takes work"
            elif cordoned >= most:
                share = f"{self.rule.share:.0%}"
                spared = f"{cordoned} of {present} nodes are cordoned for that already, and {share} may be"
            evidence = tuple(sorted(jobs.values(), key=lambda one: (one.time, one.job)))
            if spared and self._spared.get(node) == len(evidence):
                continue
            if spared:
                self._spared[node] = len(evidence)
            else:
                left, cordoned = left - 1, cordoned + 1
            found.append(Sentence(node, _words(evidence), evidence, spared))
        return found

    def _forget_old(self, now: float) -> None:
        since = now - self.rule.window
        for table in (self._against, self._hints):
            _drop_old(table, since)
        self._unsound = {job: time for job, time in self._unsound.items() if time >= since}


def _drop_old(table: dict[Any, dict[Any, Evidence]], since: float) -> None:
    for key in list(table):
        table[key] = {one: found for one, found in table[key].items() if found.time >= since}
        if not table[key]:
            del table[key]


def _words(evidence: Sequence[Evidence]) -> str:
    """The evidence for people: which jobs, by what, and when."""
    took = format_duration(max(1.0, round(evidence[-1].time - evidence[0].time)))
    told = [f"job {one.job} attempt {one.attempt} at {_clock(one.time)} ({one.detail})" for one in evidence[-NAMED:]]
    more = f", {len(evidence) - NAMED} before" if len(evidence) > NAMED else ""
    return f"{len(evidence)} different jobs failed here within {took}: {'; '.join(told)}{more}"


def _clock(time: float) -> str:
    """A time of day in UTC; in a simulation seconds since its beginning."""
    return f"{time:g} s" if time < 1e8 else datetime.fromtimestamp(time, UTC).strftime("%H:%M:%SZ")  # noqa: PLR2004 - no clock of this century shows so little
