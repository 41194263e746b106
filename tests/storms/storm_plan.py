"""What a storm does, drawn from its seed: a list of actions, each with all of its own chance in it.

So an action may be left out and the others stay what they are: that is how a failing storm is made short.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from gpusched.policies.catalog import CATALOG

CLUSTERS = (
    "2x4@rack=a",
    "2x8@rack=a 1x4:A100@rack=b",
    "2x4:H100@rack=a 1x4:H100@rack=b 2x2:A100@rack=b",
    "1x8@rack=a+16cpu+64gb 2x4@rack=b+8cpu+64gb",
)
ASKS = (
    "1 GPU", "2 GPUs", "2 GPUs", "4 GPUs", "2x2 GPUs", "2x4 GPUs, apart", "6 GPUs in total",
    "0.5 GPU", "0.3 GPU", "2x0.4 GPU", "3 GPUs", "no GPU", "2x1 GPU within node", "2x2 GPUs within rack",
    "2x2 GPUs balanced rack", "4x1 GPU near rack",
)  # fmt: skip
WORK = (3, 8, 15, 40, 120, 2000)
RETRIES: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"on": ["lost"]},
    {"on": ["failure", "lost"]},
    {"on": ["exit:3"]},
    {"on": ["lost"], "rules": [{"on": "oom", "do": "retry_elsewhere"}, {"on": "exit:3", "do": "fail"}]},
    {"on": [], "rules": [{"on": ["pattern:xid", "start:node"], "do": "retry_elsewhere", "limit": 1}]},
    {
        "on": ["failure"],
        "rules": [{"on": ["lost", "signal"], "do": "requeue", "limit": 2, "backoff": {"first": "1s", "most": "20s"}}],
    },
)
"""What is done when an attempt goes wrong, as a job file has it; the limit is LIMIT."""
CAUSES: tuple[dict[str, Any], ...] = (
    {},
    {"cause": "oom", "cause_detail": "out of memory"},
    {"cause": "gpu_oom"},
    {"cause": "pattern", "which": "xid", "patterns": ["xid"]},
    {"cause": "start", "which": "node"},
)
"""What a node may say of why an attempt failed."""
BEGINS = 1_700_000_000.0
LIMIT = 2
"""Retries that count, of a job that is retried."""
NEAR = {"within": "required", "near": "preferred", "balanced": "balanced"}
"""How a gang's place in the topology is said here, and how in a shape."""
POLICIES = (
    *CATALOG,
    "priority+best_fit+skip+preempt",
    "priority+best_fit+skip+preempt_lower_priority",
    "las+best_fit+skip+preempt",
    "srtf+first_fit+strict+preempt",
    "priority+spread+easy",
    "shortest+best_fit+strict",
)

_HEAD = "apiVersion: gpusched/v1\nkind: Queues\ndefault_queue: chat\nqueues:\n"
LENT = (
    _HEAD + "  - {name: lab}\n"
    "  - {name: nlp, parent: lab, nominal_quota: 8, non_preemptible_may_borrow: true}\n"
    "  - {name: vision, parent: lab, nominal_quota: 4, non_preemptible_may_borrow: true}\n"
    "  - {name: chat, parent: lab, nominal_quota: 4, weight: 0.5, non_preemptible_may_borrow: true}\n"
)
"""Queues that lend to each other, in which every job can run."""
QUEUES = (
    "",
    LENT,
    LENT.replace("nominal_quota: 8", "nominal_quota: 8, min_runtime: 10s, limits: {running_jobs: 3}"),
    LENT.replace("nominal_quota: 4, weight", "nominal_quota: 4, borrowing_limit: 2, lending_limit: 1, weight"),
    LENT.replace("{name: vision,", "{name: vision, paused: true,"),
    LENT.replace(", non_preemptible_may_borrow: true", ""),
    _HEAD + "  - {name: chat, nominal_quota: 6, limits: {per_user: {gpus: 4}}}\n",
)
NAMES = ("nlp", "vision", "chat", "default", "elsewhere")

_LIKELY = (
    ("submit", 22), ("wait", 20), ("turn", 8), ("cancel", 6), ("hold", 4), ("release", 5), ("requeue", 5),
    ("lose", 4), ("cut", 3), ("return", 6), ("cordon", 2), ("resume", 3), ("soil", 2), ("sicken", 2), ("crash", 11),
    ("die", 2), ("sick", 5), ("gateway", 3), ("jump", 3), ("policy", 3), ("queues", 3), ("repeat", 3), ("freeze", 4),
    ("another", 1), ("sever", 3),
    ("drain", 3), ("window", 2), ("call_off", 1),
)  # fmt: skip


class Action(NamedTuple):
    """One thing that happens.

    Attributes:
        what: the kind of it. at: which of those that it may happen to. size: how much, long or many.
        words: what else there is to say. wait: seconds that go by before; turns: of the control plane's loop, after.
    """

    what: str
    at: int
    size: float
    words: tuple[str, ...]
    wait: float
    turns: int

    def __str__(self) -> str:
        return f"+{self.wait:g} s {self.what} at={self.at} size={self.size:g} {' '.join(self.words)}".rstrip()


class Forecast(NamedTuple):
    """A storm to be."""

    cluster: str
    policy: str
    queues: str
    actions: tuple[Action, ...]


def forecast(seed: int, steps: int) -> Forecast:
    """The storm of a seed."""
    draw = random.Random(seed)  # noqa: S311 - a storm, not a secret
    kinds, weights = zip(*_LIKELY, strict=True)
    begin = (draw.choice(CLUSTERS), draw.choice(POLICIES), draw.choice(QUEUES))
    actions = []
    for _ in range(steps):
        what = draw.choices(kinds, weights)[0]
        words: tuple[str, ...] = ()
        if what == "submit":
            words = _job(draw)
        elif what == "policy":
            words = (draw.choice(POLICIES),)
        elif what == "queues":
            words = (str(draw.randrange(len(QUEUES))),)
        elif what == "jump":
            words = (draw.choice(("its own", "the cluster's", "both")),)
        elif what == "sick":
            words = (draw.choice(("nothing written", "all written")),)
        size = draw.choice((1, 2, 3, 5, 9, 17)) * draw.choice((-1, 1))
        wait = draw.choice((0, 0, 0, 0.5, 2, 10))
        actions.append(Action(what, draw.randrange(1000), size, words, wait, draw.choice((0, 1, 1, 2))))
    return Forecast(*begin, tuple(actions))


def _job(draw: random.Random) -> tuple[str, ...]:
    """The words of a job, its work, its retry rule, and how many of it."""
    parts = [draw.choice(ASKS) + f" for {draw.choice(WORK)} s", f"priority {draw.choice((10, 50, 50, 90))}"]
    parts += [f"queue {draw.choice(NAMES)}", f"user {draw.choice(('ann', 'bo'))}"]
    if draw.random() < 0.7:
        parts.append("stoppable")
        if draw.random() < 0.3:
            parts.append(f"at least {draw.choice((5, 30))} s")
    if draw.random() < 0.2:
        parts.append(f"limit {draw.choice((5, 30, 300))} s")
    if draw.random() < 0.1:
        parts.append("held")
    return (", ".join(parts), str(draw.randrange(len(RETRIES))), str(draw.choice((1, 1, 1, 1, 2, 2, 4, 4, 30))))
