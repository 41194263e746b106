"""Clusters, jobs and things that happen, as hypothesis draws them: small, and mean where schedulers go wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...cluster.backend import Node
from ...jobs.job import Shape, TopologyWish
from .world import World

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

GIB = 1 << 30

Step = tuple[Any, ...]
"""What happens: the name of one of HAPPENS and its arguments, and last whether the policy is asked then."""

HAPPENS: dict[str, Callable[..., object]] = {
    "submit": lambda world, shape, lasts, priority, count: [world.submit(shape, lasts, priority) for _ in range(count)],
    "advance": World.advance,
    "pause": World.pause,
    "cancel": lambda world, at: world.withdraw(at, hold=False),
    "hold": lambda world, at: world.withdraw(at, hold=True),
    "release": World.release,
    "stop": lambda world, at: world.stop(at, requeue=False),
    "requeue": lambda world, at: world.stop(at, requeue=True),
    "cordon": lambda world, at: world.cordon(at, schedulable=False),
    "uncordon": lambda world, at: world.cordon(at, schedulable=True),
    "lose": World.lose,
    "regain": World.regain,
}


def clusters() -> SearchStrategy[list[Node]]:
    """One to four nodes, alike or not: types, racks, CPUs and memory, also nodes without GPUs."""
    from hypothesis import strategies as st  # noqa: PLC0415 - the helper's users have it, others need not

    kinds = st.fixed_dictionaries(
        {
            "gpus": st.sampled_from([8, 4, 8, 4, 2, 1, 0]),
            "gpu_type": st.sampled_from(["H100", "A100"]),
            "cpu_milli": st.sampled_from([64_000, 8_000, 4_000]),
            "memory": st.sampled_from([64 * GIB, 8 * GIB]),
            "rack": st.sampled_from(["a", "b"]),
        }
    )

    def build(kinds: list[dict[str, Any]], picks: list[int]) -> list[Node]:
        made = []
        for number, pick in enumerate(picks):
            kind = dict(kinds[pick % len(kinds)])
            made.append(Node(f"node-{number}", labels={"rack": kind.pop("rack")}, **kind))
        return made

    return st.builds(
        build, st.lists(kinds, min_size=1, max_size=3), st.lists(st.integers(0, 2), min_size=1, max_size=4)
    )


def shapes() -> SearchStrategy[Shape]:
    """What jobs ask for: mostly GPUs alone, as one piece, a gang or a total; now and then everything at once."""
    from hypothesis import strategies as st  # noqa: PLC0415 - as above

    plain = st.one_of(
        st.builds(Shape, st.just(0), st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16, 20])),
        st.builds(Shape, st.just(1), st.sampled_from([1, 2, 4, 8, 3])),
        st.builds(Shape, st.sampled_from([2, 3, 4]), st.sampled_from([1, 2, 4, 8])),
    )
    full = st.builds(
        _full,
        plain,
        milli=st.sampled_from([0, 0, 100, 250, 500, 700]),
        types=st.sampled_from([(), (), ("H100",), ("A100",), ("A100", "H100")]),
        cpu=st.sampled_from([0, 0, 1000, 4000, 16_000]),
        memory=st.sampled_from([0, 0, GIB, 16 * GIB]),
        labels=st.sampled_from([(), (), (("rack", "a"),)]),
        distinct=st.sampled_from([False, False, True]),
        no_gpu=st.sampled_from([False, False, False, False, True]),
    )
    return st.one_of(plain, full)


def _full(
    plain: Shape,
    *,
    milli: int,
    types: tuple[str, ...],
    cpu: int,
    memory: int,
    labels: tuple[tuple[str, str], ...],
    distinct: bool,
    no_gpu: bool,
) -> Shape:
    pieces = max(plain.num_nodes, 1) if milli or no_gpu else plain.num_nodes
    gpus = 0 if milli or no_gpu else plain.gpus
    return Shape(pieces, gpus, 0 if no_gpu else milli, types, cpu, memory, labels, distinct and pieces > 1)


def menus() -> SearchStrategy[list[Shape]]:
    """The few shapes of one world, some alike but for one wish: where one does not fit the other may."""
    from hypothesis import strategies as st  # noqa: PLC0415 - as above

    changes = st.sampled_from(
        [
            *({"gpus": 1}, {"gpus": 2}, {"gpus": 8}, {"num_nodes": 2, "distinct": True}),
            *({"gpu_types": ("H100",)}, {"labels": (("rack", "a"),)}),
            *({"cpu_milli": 4000}, {"memory": 16 * GIB}, {"cpu_milli": 0, "memory": 0}),
            *({"topology": TopologyWish("required", "rack")}, {"topology": TopologyWish("required", "node")}),
            *({"topology": TopologyWish("preferred", "rack")}, {"topology": TopologyWish("balanced", "rack")}),
            *({"avoid": ("node-0",)}, {"avoid": ("node-0", "node-1", "node-2")}),
        ]
    )

    def widen(shapes: list[Shape], changes: list[dict[str, Any]]) -> list[Shape]:
        alike = [replace(shape, **change) for shape, change in zip(shapes * 2, changes, strict=False)]
        return shapes + [shape for shape in alike if not (shape.gpus and shape.gpu_milli)]

    return st.builds(widen, st.lists(shapes(), min_size=1, max_size=4), st.lists(changes, max_size=3))


def steps() -> SearchStrategy[list[Step]]:
    """What happens, in order. Few shapes recur, so that groups fill; run times reach from seconds to days."""
    from hypothesis import strategies as st  # noqa: PLC0415 - as above

    # By number of entries: a choice between strategies would give each kind the same weight.
    kinds = st.sampled_from(["submit"] * 16 + ["advance"] * 6 + ["pause"] * 3 + sorted(HAPPENS) * 2)
    lasts = st.sampled_from([1.0, 10.0, 10.0, 3600.0, 50_000.0, 90_000.0])
    asked = st.sampled_from([True, True, True, False])
    priority, count = st.sampled_from([50, 50, 10, 90]), st.sampled_from([1, 1, 2, 5])

    def happenings(menu: list[Shape]) -> SearchStrategy[list[Step]]:
        one = st.builds(_step, kinds, st.sampled_from(menu), lasts, priority, count, st.integers(0, 7), asked)
        return st.one_of(st.lists(one, min_size=1, max_size=10), st.lists(one, min_size=10, max_size=40))

    return menus().flatmap(happenings)


def _step(kind: str, shape: Shape, lasts: float, priority: int, count: int, at: int, asked: bool) -> Step:  # noqa: FBT001, PLR0917 - as drawn
    if kind == "submit":
        return kind, shape, lasts, priority, count, asked
    if kind == "pause":
        return kind, lasts, asked
    return (kind, asked) if kind == "advance" else (kind, at, asked)
