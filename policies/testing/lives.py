"""Long lives of small crowded clusters, each from a seed: deep where hypothesis is broad.

What only shows when a queue is long, a node has gone and a head is blocked is rare among the short worlds that shrink
well. So a seed makes a long life, and one that breaks a law is cut down step by step as long as it still does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from ...cluster.backend import Node
from ...jobs.job import Shape, TopologyWish
from .draws import GIB, HAPPENS, Step

LENGTH = 60
"""Steps of a life."""

_KINDS = ["submit"] * 14 + ["advance"] * 8 + ["pause"] * 4 + sorted(HAPPENS.keys() - {"submit", "advance", "pause"}) * 2
_BASES = [Shape(1, 1), Shape(1, 2), Shape(1, 4), Shape(1, 8), Shape(0, 4), Shape(0, 12), Shape(2, 2), Shape(2, 4)]
_CHANGES: list[Callable[[Shape], Shape]] = [
    lambda shape: replace(shape, gpu_types=("H100",)),
    lambda shape: replace(shape, gpu_types=("A100", "H100")),
    lambda shape: replace(shape, labels=(("rack", "a"),)),
    lambda shape: replace(shape, cpu_milli=4000),
    lambda shape: replace(shape, cpu_milli=16_000),
    lambda shape: replace(shape, memory=16 * GIB),
    lambda shape: replace(shape, topology=TopologyWish("required", "rack")),
    lambda shape: replace(shape, topology=TopologyWish("balanced", "rack")),
    lambda shape: replace(shape, num_nodes=2, distinct=True),
    lambda shape: replace(shape, num_nodes=1, gpus=0, gpu_milli=400, distinct=False),
    lambda shape: replace(shape, num_nodes=1, gpus=0, cpu_milli=4000, distinct=False),
    lambda shape: replace(shape, gpus=max(shape.gpus // 2, 1), gpu_milli=0),
    lambda shape: replace(shape, gpus=shape.gpus + 1, gpu_milli=0),
]


def life(seed: int) -> tuple[list[Node], list[Step]]:
    """The nodes and what happens. One to three nodes and few shapes, so that most of the time somebody waits."""
    draw = Random(f"life {seed}")  # noqa: S311 - a test's world, no secret
    nodes = [
        Node(
            f"node-{number}",
            draw.choice([8, 8, 4, 4, 2, 0]),
            draw.choice(["H100", "A100"]),
            draw.choice([64_000, 8_000, 4_000]),
            draw.choice([64, 16]) * GIB,
            {"rack": draw.choice("ab")},
        )
        for number in range(draw.randint(1, 3))
    ]
    menu = draw.sample(_BASES, draw.randint(1, 3))
    menu += [draw.choice(_CHANGES)(draw.choice(menu)) for _ in range(draw.randint(1, 3))]
    lasts = draw.choice([[10.0], [1.0, 10.0, 40.0], [3600.0, 50_000.0, 90_000.0]])
    return nodes, [_step(draw, menu, lasts) for _ in range(LENGTH)]


def _step(draw: Random, menu: list[Shape], lasts: list[float]) -> Step:
    kind, asked = draw.choice(_KINDS), draw.random() < 0.9  # noqa: PLR2004 - now and then several things at once
    if kind == "submit":
        return kind, draw.choice(menu), draw.choice(lasts), draw.choice([50, 50, 10, 90]), draw.choice([1, 1, 3]), asked
    if kind == "pause":
        return kind, draw.choice([0.5, 5.0, 30_000.0]), asked
    return (kind, asked) if kind == "advance" else (kind, draw.randrange(8), asked)


def cut_down(steps: list[Step], breaks: Callable[[list[Step]], bool]) -> list[Step]:
    """The same life without the steps that it does not need to break the law."""
    size = len(steps) // 2
    while size:
        at = 0
        while at < len(steps):
            shorter = steps[:at] + steps[at + size :]
            if shorter and breaks(shorter):
                steps = shorter
            else:
                at += size
        size //= 2
    return steps
