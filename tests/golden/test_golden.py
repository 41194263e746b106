"""Small runs with their whole log as text. A change of behaviour shows as a diff of tests/golden/*.txt.

To accept a change that is meant: `GPUSCHED_GOLDEN=write pytest tests/golden`, and read the diff before it is
committed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builders import World, cluster, job, trace
from gpusched.cluster.backend import Node
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import RetryRule, Rule
from gpusched.policies.catalog import CATALOG, load
from gpusched.policies.plan import Decision
from gpusched.scheduler.simulate import trial
from gpusched.scheduler.store import MemoryStore

HERE = Path(__file__).parent

RUSH = [
    job("6 GPUs for 20 s"),
    job("5 GPUs for 12 s"),
    job("16 GPUs in total for 10 s", at=1),
    job("4 GPUs for 8 s", at=2),
    job("3 GPUs for 6 s", at=3),
    job("1 GPU for 5 s", at=4),
    job("0.5 GPU for 9 s", at=4),
    job("2x2 GPUs for 7 s, apart", at=5),
    job("1 GPU for 30 s, limit 10 s", at=6),
    job("2 GPUs for 4 s, priority 90", at=13),
    job("8 GPUs for 3 s", at=14),
]
MIXED = [
    job("4 H100|A100 GPUs for 10 s"),
    job("4 A100 GPUs for 10 s", at=1),
    job("8 H100 GPUs for 5 s", at=2),
    job("2 GPUs for 4 s, rack=b", at=2),
    job("1 GPU for 3 s, 6 CPUs, 48 GB", at=3),
    job("1 GPU for 3 s, 6 CPUs, 48 GB", at=3),
    job("2x1 GPU for 6 s, 2 CPUs, apart", at=4),
    job("no GPU for 9 s, 4 CPUs", at=4),
    job("3x0.4 GPU for 5 s", at=5),
]


def simulated(policy: str, words: str, asks: list) -> Iterator[str]:
    nodes = cluster(words)
    done = trial(trace(*asks), nodes, load(policy))
    yield from lines(done.store, nodes)


def troubles() -> Iterator[str]:
    """Everything that can go wrong with an attempt, and every verb of a user."""
    nodes = cluster("2x8")
    world = World(nodes, "binpack")
    world.submit(
        job("2x8 GPUs for 9 s", retry=("lost",)), job("4 GPUs, held"), job("8 GPUs", retry=("exit:3",), retries=1)
    )
    world.started(1)
    world.tick(at=5)
    world.change("n1", gone=True)
    world.vanished(1)
    world.started(3)
    world.release(2)
    world.tick(at=8)
    world.finished(3, 3)
    world.started(2)
    world.hold(3)
    world.tick(at=9)
    world.change("n1")
    world.release(3)
    world.tick(at=13)
    world.refused(3)
    world.tick(at=20)
    world.started(3)
    world.cancel(2)
    world.finished(2, 143)
    world.finished(3, 3)
    world.submit(job("8 GPUs, limit 10 s"))
    world.started(1)
    world.tick(at=25)
    world.finished(1, 75)
    world.tick(at=30)
    world.started(1)
    world.finished(1)
    world.started(4)
    world.tick(at=40)
    world.finished(4, 143)
    yield from lines(world.store, nodes)


def causes() -> Iterator[str]:
    """Attempts that end by causes, and what each rule makes of them."""
    nodes = cluster("3x8")
    world = World(nodes, "binpack")
    rules = (
        Rule(("exit:3",), "fail"),
        Rule(("oom", "pattern:ecc"), "retry_elsewhere", 2),
        Rule(("log:/flaky/",), "requeue", backoff=(2.0, 8.0)),
    )
    world.submit(job("2x8 GPUs"), job("1 GPU"))
    for one in world.jobs.values():
        one.retry = RetryRule(3, ("failure", "lost"), rules)

    def ends(number: int, kind: Kind = Kind.FINISHED, **data: Any) -> None:
        world.started(number)
        world.report(kind, number, data=data)
        world.tick(at=world.now + 10)

    ends(1, exit_code=137, signal=9, cause="oom", cause_detail="out of memory", failed_rank=1)
    ends(2, exit_code=1, cause="exit", which="1", cause_detail="exit code 1", matched=[0], failed_rank=0)
    ends(1, Kind.VANISHED, message="node n2 is gone", cause="node_lost", node="n2")
    ends(
        2, exit_code=1, cause="pattern", which="ecc", patterns=["ecc"], cause_detail="its log shows ecc", failed_rank=0
    )
    ends(1, exit_code=126, cause="start", which="node", cause_detail="no room on its disk", failed_rank=0)
    ends(2, exit_code=3, cause="exit", which="3", cause_detail="exit code 3", failed_rank=0)
    ends(1, exit_code=0)
    yield from lines(world.store, nodes)


def lines(store: MemoryStore, nodes: list[Node]) -> Iterator[str]:
    """The journal in the order in which it was written, each decision before what it placed."""
    choices = store.choices.copy()
    for event in store.journal:
        if not event.job:
            continue  # a line about the cluster
        while choices and (choices[0].time < event.time or (event.kind is Kind.PLACED and _before(choices, event))):
            yield from of_decision(choices.pop(0))
        yield f"{event.time:>5g}  {of_event(event, nodes)}".rstrip()
    for choice in choices:
        yield from of_decision(choice)


def _before(choices: list[Decision], event: Event) -> bool:
    """Whether the decision that placed this job is still to be told."""
    return any(event.job in choice.starts for choice in choices if choice.time == event.time)


def of_event(event: Event, nodes: list[Node]) -> str:
    details = ""
    if event.kind is Kind.SUBMITTED:
        details = str(event.data.shape)
    elif event.kind is Kind.PLACED:
        details = " ".join(
            f"{nodes[piece.node].name}:{piece.gpus + piece.gpu_milli / 1000:g}"
            + (f"#{piece.slot}" if piece.gpu_milli else "")
            for piece in event.data
        )
    elif event.data:
        details = " ".join(f"{key}={value}" for key, value in event.data.items())
    who = f"job {event.job}" + (f".{event.attempt}" if event.attempt else "")
    return f"{who:<7} {event.kind:<10} {details}"


def of_decision(choice: Decision) -> Iterator[str]:
    starts = ", ".join(map(str, choice.starts)) or "nothing"
    state = f"{choice.waiting_jobs} wait, {choice.free_gpus} GPUs free"
    yield f"{choice.time:>5g}  {choice.policy}: {state}, starts {starts}"
    for (lane, shape), why in choice.waiting:
        numbers = f"needs {why.needs:g}, free {why.free:g}, largest {why.largest}"
        whose = f"{' '.join(lane)}: " if lane else ""
        yield f"         {whose}{shape} waits: {why.token}, {numbers}" + (
            f", behind {why.behind}" if why.behind else ""
        )


GOLDEN: dict[str, Callable[[], Iterator[str]]] = {
    **{f"rush-{name}": lambda name=name: simulated(name, "2x8", RUSH) for name in CATALOG},
    "rush-shortest-first": lambda: simulated("shortest+best_fit+strict", "2x8", RUSH),
    "rush-priority-spread": lambda: simulated("priority+spread+skip", "2x8", RUSH),
    "mixed-cluster": lambda: simulated(
        "binpack", "1x8:H100@rack=a+8cpu+64gb 1x4:A100@rack=b+64cpu+64gb 1x4:A100@rack=b+8cpu+512gb", MIXED
    ),
    "troubles": troubles,
    "causes": causes,
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_run_is_as_it_was(name):
    file = HERE / f"{name}.txt"
    text = "\n".join(GOLDEN[name]()) + "\n"
    if os.environ.get("GPUSCHED_GOLDEN") == "write":
        file.write_text(text)
    assert file.exists(), "write it first: GPUSCHED_GOLDEN=write pytest tests/golden"
    assert text.splitlines() == file.read_text().splitlines()


def test_no_log_is_left_of_a_run_that_is_gone():
    assert {file.stem for file in HERE.glob("*.txt")} == GOLDEN.keys()
