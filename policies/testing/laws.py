"""`check_policy`: the laws on drawn worlds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ...cluster.backend import Node
from ...jobs.job import Shape
from ..backfill import Backfill
from ..blocking import Strict
from ..catalog import load
from ..greedy import Greedy, Policy
from ..place import best_fit
from . import draws
from .lives import cut_down, life
from .world import LawBrokenError, Promises, World

RUN_TIMES = (3600.0, 1811.0, 5413.0, 2707.0, 7213.0, 4519.0, 6329.0)
"""Seconds that the jobs of an endless stream run, in turn: primes, so that a node hardly ever empties by itself."""


def check_policy(
    policy: str | Callable[[], Policy],
    *,
    promises: Promises | None = None,
    examples: int = 100,
    seed: int | None = None,
) -> None:
    """Check that a policy keeps the laws, on clusters and queues that hypothesis draws.

        from gpusched.policies.testing import Promises, check_policy
        from mypolicy import Mine

        def test_mine_keeps_the_laws():
            check_policy(Mine, promises=Promises(patience=24 * 3600.0))

    For every policy: no GPU is given twice and no node holds more GPUs, parts of GPUs, CPUs or memory than it has; no
    gang starts in part; type, labels, `distinct` and nodes that take no work are honoured; the same input gives the
    same plan; what it was asked before changes nothing; it leaves the pool as it found it; a job that fits the idle
    cluster starts sooner or later; who waits is told why. And what it promises beyond that.

    Args:
        policy: a class or function that makes it, or a name as on the command line, such as `binpack`.
        promises: what to check beyond the laws for all; left out: what the parts of a `Greedy` promise.
        examples: how many worlds to draw; half as many long lives come first (`lives`).
        seed: draw other worlds; left out: the same each time.

    Raises:
        LawBrokenError: the law that was broken comes first in its words; the smallest world found is printed.
    """
    from hypothesis import HealthCheck, Phase, given, settings  # noqa: PLC0415 - only this helper needs it
    from hypothesis import seed as seeded  # noqa: PLC0415 - the same

    factory: Callable[[], Policy] = partial(load, policy) if isinstance(policy, str) else policy
    promised = promised_by(factory()) if promises is None else promises
    for number in range(examples // 2):
        _live_long(number if seed is None else seed * examples + number, factory, promised)
    # Explaining a failure takes hypothesis many more runs and says nothing that the shrunk world does not.
    drawn: Any = settings(
        max_examples=examples,
        derandomize=seed is None,
        deadline=None,
        database=None,
        print_blob=True,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )

    def happens(nodes: list[Node], steps: list[draws.Step]) -> None:
        live(World(nodes, factory, promised), steps)

    def crowds(nodes: list[Node], narrow: list[Shape], wide: Shape) -> None:
        outlast(World(nodes, factory, promised, judge_history=False), narrow, wide)

    tests: list[Any] = [given(draws.clusters(), draws.steps())(happens)]
    if promised.patience is not None:
        from hypothesis import strategies as st  # noqa: PLC0415 - the same

        tests.append(given(draws.clusters(), st.lists(draws.shapes(), min_size=1, max_size=3), draws.shapes())(crowds))
    for test in tests:
        drawn(test if seed is None else seeded(seed)(test))()


def _live_long(seed: int, factory: Callable[[], Policy], promised: Promises) -> None:
    nodes, steps = life(seed)
    broken: list[LawBrokenError] = []

    def breaks(steps: list[draws.Step]) -> bool:
        try:
            live(World(nodes, factory, promised), steps)
        except LawBrokenError as error:
            if not broken or error.law == broken[-1].law:
                broken.append(error)
                return True
        return False

    if breaks(steps):
        steps = cut_down(steps, breaks)
        told = "".join(f"     {step!r},\n" for step in steps)
        broken[-1].add_note(f"Failing life {seed}:\n    nodes={nodes!r},\n    steps=[\n{told}    ]")
        raise broken[-1]


def promised_by(policy: Policy) -> Promises:
    """What strict blocking, best fit and backfill promise, of a policy made of such parts; nothing of others.

    Who stops running jobs may give their nodes to others than those that were promised them.
    """
    kind = type(policy)
    if not isinstance(policy, Greedy) or kind.plan is not Greedy.plan:
        return Promises()
    packs = kind.place is Greedy.place and policy._place is best_fit  # noqa: SLF001 - of this package
    kept = isinstance(policy.blocking, Backfill) and policy.reclaim is None and packs
    return Promises(strict=isinstance(policy.blocking, Strict), never_splits=packs, starts=kept)


def live(world: World, steps: Sequence[draws.Step]) -> None:
    """Let it all happen, asking the policy now and then, and see it to the end."""
    for name, *arguments, asked in steps:
        draws.HAPPENS[name](world, *arguments)
        if asked:
            world.ask()
    world.run_out()


def outlast(world: World, narrow: Sequence[Shape], wide: Shape) -> None:
    """A job comes into a cluster that others keep full; it must start all the same.

    The others never stop: whenever fewer wait than the cluster has GPUs, more come.
    """
    patience = world.promises.patience
    assert patience is not None
    stream = [shape for shape in narrow if world.could_run(shape)]
    if not stream or not world.could_run(wide):
        return
    crowd = min(2 * sum(node.gpus for node in world.nodes) + 4, 40)
    last = None
    until = 0.0
    for turn in range(100_000):
        while len(world.waiting) < crowd:
            world.submit(stream[len(world.jobs) % len(stream)], RUN_TIMES[len(world.jobs) % len(RUN_TIMES)])
        world.ask()
        if turn == crowd:
            last = world.submit(wide, RUN_TIMES[0])
            until = world.now + patience + (crowd + 20) * max(RUN_TIMES)
        if last is not None and last.first_start is not None:
            return
        if last is not None and world.now > until:
            break
        world.advance()
    raise LawBrokenError(
        "sooner or later",
        f"job {last.id if last else 0} ({wide}) waits after {world.now:g} s, while others come and go",
    )
