"""From what a run left behind to its figures. Nothing here can tell a live run from a simulated one."""

from __future__ import annotations

from .aggregate import Aggregate, Estimate, combine
from .distribution import Distribution, rank
from .fairness import Rho, jain_by_user
from .groups import Group
from .ledger import Waste
from .measures import MIN_RUN, bounded_slowdown, completion_time, queueing_delay
from .run import Run, cluster_in_words, span_of
from .summary import Summary, summarize
from .window import Window, WindowError

__all__ = [
    "MIN_RUN",
    "Aggregate",
    "Distribution",
    "Estimate",
    "Group",
    "Rho",
    "Run",
    "Summary",
    "Waste",
    "Window",
    "WindowError",
    "bounded_slowdown",
    "cluster_in_words",
    "combine",
    "completion_time",
    "jain_by_user",
    "queueing_delay",
    "rank",
    "span_of",
    "summarize",
]
