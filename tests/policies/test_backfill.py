"""Backfill by hand: small queues whose every start was worked out on paper, and what is told of the promises."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest

from builders import Ask, World, cluster, job, trace
from gpusched.jobs.errors import NotFoundError
from gpusched.policies.backfill import Backfill
from gpusched.policies.catalog import load
from gpusched.policies.estimates import Estimates
from gpusched.policies.greedy import Greedy
from gpusched.policies.order import ORDERS
from gpusched.policies.place import PLACERS
from gpusched.policies.plan import Token
from gpusched.scheduler.simulate import trial

ALL = math.inf


@dataclass(frozen=True)
class Case:
    """Jobs that come at their times, and when each starts."""

    jobs: list[Ask]
    starts: list[float]
    nodes: str = "1x8"
    depth: float = 1
    shortest_first: bool = False


def at(seconds: float, words: str) -> Ask:
    return job(words, at=seconds)


CASES = {
    "a later job that fits and ends in time goes first": Case(
        [at(0, "6 GPUs for 10 s"), at(1, "4 GPUs for 5 s"), at(2, "2 GPUs for 8 s")], [0, 10, 2]
    ),
    "a candidate that ends exactly at the shadow time starts": Case(
        [at(0, "6 GPUs for 10 s"), at(1, "8 GPUs for 5 s"), at(2, "2 GPUs for 8 s")], [0, 10, 2]
    ),
    "a candidate that ends a second later waits": Case(
        [at(0, "6 GPUs for 10 s"), at(1, "8 GPUs for 5 s"), at(2, "2 GPUs for 9 s")], [0, 10, 15]
    ),
    "a long candidate starts on what the head leaves over at its start": Case(
        [at(0, "6 GPUs for 10 s"), at(1, "5 GPUs for 5 s"), at(2, "2 GPUs for 99 s")], [0, 10, 2]
    ),
    "what is left over is used up by the first long candidate": Case(
        [at(0, "5 GPUs for 10 s"), at(1, "6 GPUs for 5 s"), at(2, "2 GPUs for 99 s"), at(3, "1 GPU for 99 s")],
        [0, 10, 2, 15],
    ),
    "a short candidate uses up nothing of it": Case(
        [at(0, "5 GPUs for 10 s"), at(1, "6 GPUs for 5 s"), at(2, "1 GPU for 8 s"), at(3, "2 GPUs for 99 s")],
        [0, 10, 2, 3],
    ),
    # Job 2 starts in the same pass as job 1 and holds 4 GPUs until 20: the head can have 8 at 20 and not at 10.
    "what started in the same pass counts for the shadow time": Case(
        [at(0, "4 GPUs for 10 s"), at(0, "4 GPUs for 20 s"), at(0, "8 GPUs for 5 s"), at(10, "4 GPUs for 10 s")],
        [0, 0, 20, 10],
    ),
    "heads start while they fit, and the next that does not gets the promise": Case(
        [
            at(0, "8 GPUs for 10 s"),
            at(1, "4 GPUs for 10 s"),
            at(1, "6 GPUs for 10 s"),
            at(1, "4 GPUs for 11 s"),
            at(1, "4 GPUs for 10 s"),
        ],
        [0, 10, 20, 30, 10],
    ),
    # 8 GPUs are free in all from 10 on, 4 on each node; a whole node is free at 20.
    "fragments make the shadow later than a count would": Case(
        [
            *[at(0, words) for words in ("4 GPUs for 10 s", "4 GPUs for 20 s", "4 GPUs for 10 s", "4 GPUs for 30 s")],
            at(1, "8 GPUs for 5 s"),
            at(2, "4 GPUs for 10 s"),
            at(3, "4 GPUs for 11 s"),
        ],
        [0, 0, 0, 0, 20, 10, 10],
        nodes="2x8",
    ),
    # The candidate takes the one GPU that is free, on n0, for long; the promised job goes to n1 at the same instant.
    "the promised job goes elsewhere at the same instant if that lets a candidate start": Case(
        [at(0, "7 GPUs for 10 s"), at(0, "8 GPUs for 10 s"), at(1, "8 GPUs for 5 s"), at(2, "1 GPU for 99 s")],
        [0, 0, 10, 2],
        nodes="2x8",
    ),
    "another type of GPU is no competition": Case(
        [
            at(0, "6 H100 GPUs for 10 s"),
            at(0, "6 A100 GPUs for 99 s"),
            at(1, "8 H100 GPUs for 5 s"),
            at(2, "2 A100 GPUs for 50 s"),
            at(3, "2 H100 GPUs for 50 s"),
            at(4, "2 GPUs for 6 s"),
        ],
        [0, 0, 10, 2, 15, 4],
        nodes="1x8:H100 1x8:A100",
    ),
    "what is short may be CPUs": Case(
        [
            at(0, "1 GPU for 10 s, 6 CPUs"),
            at(1, "1 GPU for 5 s, 8 CPUs"),
            at(2, "1 GPU for 9 s, 2 CPUs"),
            at(3, "1 GPU for 9 s"),
        ],
        [0, 10, 15, 3],
        nodes="1x8+8cpu",
    ),
    "parts of a GPU are kept too": Case(
        [at(0, "0.6 GPU for 10 s"), at(1, "0.7 GPU for 5 s"), at(2, "0.4 GPU for 9 s"), at(3, "0.4 GPU for 6 s")],
        [0, 10, 15, 3],
        nodes="1x1",
    ),
    # Job 1 says 20 and ends at 10. The candidate was let in until 20; it delays nobody beyond the promise.
    "an early end moves the start forward, and never beyond the promise": Case(
        [at(0, "6 GPUs for 10 s, estimate 20 s"), at(1, "8 GPUs for 5 s"), at(2, "2 GPUs for 15 s")], [0, 17, 2]
    ),
    # Job 1 says 10 and runs 20. From 10 on it is taken to end at 11, 12.1, 13.31, 14.641 and so on.
    "a job that outlasts its estimate is taken to run a tenth longer, and again": Case(
        [
            at(0, "6 GPUs for 20 s, estimate 10 s"),
            at(1, "8 GPUs for 5 s"),
            at(13.4, "2 GPUs for 2 s"),
            at(13.4, "1 GPU for 1 s"),
        ],
        [0, 20, 25, 13.4],
    ),
    # The short candidate would fit beside the head, and would delay the second that was promised a start.
    "two promises keep out what one lets in": Case(
        [
            at(0, "6 GPUs for 10 s"),
            at(1, "7 GPUs for 5 s"),
            at(1, "8 GPUs for 5 s"),
            at(2, "1 GPU for 20 s"),
        ],
        [0, 10, 15, 20],
        depth=2,
    ),
    "one promise lets it in": Case(
        [
            at(0, "6 GPUs for 10 s"),
            at(1, "7 GPUs for 5 s"),
            at(1, "8 GPUs for 5 s"),
            at(2, "1 GPU for 20 s"),
        ],
        [0, 10, 22, 2],
    ),
    "of two candidates for one place the first in order starts": Case(
        [
            at(0, "6 GPUs for 10 s"),
            at(1, "8 GPUs for 5 s"),
            at(2, "2 GPUs for 9 s"),
            at(2, "2 GPUs for 8 s"),
            at(2, "2 GPUs for 3 s"),
        ],
        [0, 10, 15, 2, 15],
    ),
    "shortest first the shortest starts": Case(
        [
            at(0, "6 GPUs for 10 s"),
            at(1, "8 GPUs for 5 s"),
            at(2, "2 GPUs for 9 s"),
            at(2, "2 GPUs for 8 s"),
            at(2, "2 GPUs for 3 s"),
        ],
        [0, 10, 15, 15, 2],
        shortest_first=True,
    ),
    # The hole before the second job is 5 s long and 4 GPUs high: promised to the third. The early end of job 2 would
    # let the second start at 5 if it could take that hole away; it may not.
    "conservative: an early end takes no promised hole away": Case(
        [
            at(0, "4 GPUs for 5 s"),
            at(0, "4 GPUs for 2 s, estimate 10 s"),
            at(1, "8 GPUs for 10 s"),
            at(1, "4 GPUs for 5 s"),
        ],
        [0, 0, 7, 2],
        depth=ALL,
    ),
    "conservative: everybody who waits moves forward in order": Case(
        [
            at(0, "8 GPUs for 4 s, estimate 10 s"),
            at(1, "8 GPUs for 4 s, estimate 10 s"),
            at(2, "8 GPUs for 4 s, estimate 10 s"),
            at(3, "2 GPUs for 4 s"),
        ],
        [0, 4, 8, 12],
        depth=ALL,
    ),
    "a gang of several pieces is promised as many nodes": Case(
        [
            at(0, "8 GPUs for 10 s"),
            at(0, "8 GPUs for 20 s"),
            at(1, "2x8 GPUs for 5 s"),
            at(11, "8 GPUs for 9 s"),
            at(11, "8 GPUs for 10 s"),
        ],
        [0, 0, 20, 11, 25],
        nodes="2x8",
    ),
}


def rule(case: Case) -> Backfill:
    return Backfill(case.depth, case.shortest_first)


@pytest.mark.parametrize("name", CASES)
def test_by_hand(name):
    case = CASES[name]
    policy = Greedy("by hand", order=ORDERS["arrival"], place=PLACERS["best_fit"], blocking=rule(case))
    said = [replace(ask, estimate=ask.lasts if ask.estimate is None else ask.estimate) for ask in case.jobs]
    run = trial(trace(*said), cluster(case.nodes), policy, estimates="trace").run
    assert [one.first_start for one in run.jobs] == case.starts


# What is told ---------------------------------------------------------------------------------------------------------


def running(world: World) -> list[int]:
    return [one.id for one in world.running()]


def promises(world: World) -> list[tuple[int, float]]:
    """Every promise in the journal, in the order in which they were made."""
    return [promise for _, decision in world.store.decisions() for promise in decision.promises]


def test_a_promise_is_in_the_journal_once_and_again_when_it_is_another():
    world = World(cluster("1x8"), "easy")
    world.submit(job("6 GPUs, estimate 100 s"), job("8 GPUs, estimate 10 s"))
    assert promises(world) == [(2, 100.0)]
    world.tick(at=50)
    world.submit(job("1 GPU, estimate 30 s"))
    assert promises(world) == [(2, 100.0)]
    world.finished(1)
    assert promises(world) == [(2, 100.0), (2, 80.0)]
    world.finished(3)
    assert running(world) == [2]


def test_who_fits_and_would_delay_a_promise_is_told_for_whom_the_room_is_kept():
    world = World(cluster("1x8"), "easy")
    world.submit(job("6 GPUs, estimate 100 s"), job("8 GPUs, estimate 10 s"), job("2 GPUs, estimate 101 s"))
    group = world.engine.queue.group_of(world.jobs[3])
    assert group.why is not None
    assert (group.why.token, group.why.needs, group.why.free, group.why.behind) == (Token.RESERVED_FOR_OTHER, 2, 2, 2)
    head = world.engine.queue.group_of(world.jobs[2])
    assert head.why is not None
    assert head.why.token is Token.INSUFFICIENT_GPUS


def test_a_promise_outlives_a_change_of_the_policy_that_also_promises():
    world = World(cluster("1x8"), "easy")
    world.submit(job("6 GPUs, estimate 100 s"), job("8 GPUs, estimate 10 s"))
    world.engine.use(load("conservative"))
    world.tick()
    assert promises(world) == [(2, 100.0)]
    assert world.engine.queue.promised[2].start == 100


def test_a_node_that_goes_moves_the_promise_to_the_next_best_start():
    world = World(cluster("2x8"), "easy")
    world.submit(job("6 GPUs, estimate 50 s"), job("8 GPUs, estimate 100 s"), job("8 GPUs, estimate 10 s"))
    assert promises(world) == [(3, 50.0)]
    world.change("n0", schedulable=False, why="cordoned")
    world.submit(job("1 GPU, estimate 1 s"))
    assert promises(world) == [(3, 50.0), (3, 100.0)]


# Estimates ------------------------------------------------------------------------------------------------------------


def test_a_job_whose_length_nobody_knows_starts_on_what_is_left_over_alone():
    world = World(cluster("1x8"), "easy")
    world.submit(job("6 GPUs, estimate 100 s"), job("7 GPUs, estimate 10 s"))
    for one in (unknown("2 GPUs"), unknown("1 GPU")):
        world.submit(one)
    assert running(world) == [1, 4]


def unknown(words: str) -> Ask:
    """Infinity is to the policy what not to know is; the builders' words take no word for that."""
    return replace(job(words), estimate=math.inf)


def test_where_no_end_is_known_nothing_is_promised_and_nobody_starves():
    """Running jobs are taken to leave in the order in which they started: then the head gets n0, and keeps it free."""
    world = World(cluster("2x8"), "easy")
    world.submit(*[unknown("6 GPUs")] * 2, unknown("8 GPUs"))
    assert promises(world) == []
    world.submit(unknown("1 GPU"), unknown("1 GPU"), unknown("1 GPU"))
    assert {world.jobs[number].placement[0].node for number in running(world) if number > 3} == {1}
    world.finished(1)
    assert 3 in running(world)


def test_a_head_that_waits_an_hour_beyond_its_promise_trusts_no_estimate_any_more():
    """Jobs that say 1 s and run on keep the head from starting only as long as the promise is younger than that."""
    world = World(cluster("1x8"), "easy")
    world.submit(*[job("4 GPUs, estimate 1 s")] * 2, job("8 GPUs, estimate 10 s"))
    world.tick(at=100)
    world.finished(1)
    world.submit(job("4 GPUs, estimate 1 s"))
    assert running(world) == [2, 4]  # 2 is taken to end so late that a job of 1 s fits in
    world.tick(at=3800)
    world.finished(4)
    world.submit(job("4 GPUs, estimate 1 s"))
    assert running(world) == [2]
    world.finished(2)
    assert running(world) == [3]


def test_an_estimate_is_what_is_said_less_what_was_done_then_the_limit_then_the_users_last_runs():
    book = Estimates(last=4, quantile=0.5)
    world = World(cluster("1x8"))
    (said,) = world.submit(job("1 GPU, estimate 100 s"))
    assert book.length(said) == 100
    said.executed = 30.0
    assert book.length(said) == 70
    said.limit = 50.0
    assert book.length(said) == 50
    said.estimate = None
    assert book.length(said) == 50
    said.limit, said.user = None, "ada"
    assert book.length(said) == math.inf
    for runs in (10.0, 20.0, 40.0, 80.0, 160.0):
        world.finished(said.id)
        said.placed, said.executed, said.id = 0.0, 0.0, said.id
        book.ended(said, runs)
    (later,) = world.submit(job("1 GPU"))
    later.estimate, later.user = None, "ada"
    assert book.length(later) == 40
    book.ended(said, 1000.0)
    assert book.length(later) == 40  # made once, and kept for the job


# Names ----------------------------------------------------------------------------------------------------------------


def test_the_names_in_the_menu_and_in_compositions():
    assert load("backfill").name == "easy"
    assert load("easy").blocking.name == "EASY backfill"
    assert load("sjbf").blocking.name == "EASY backfill, shortest first"
    assert load("conservative?depth=all").blocking.name == "conservative backfill"
    assert load("conservative").blocking.name == "backfill beside 100 promises"
    assert load("priority+best_fit+easy").blocking.name == "EASY backfill"


@pytest.mark.parametrize("name", ["easy?depth=0", "easy?quantile=2", "easy?deep=1", "easy?depth=some"])
def test_an_option_that_makes_no_sense_is_one_clear_message(name):
    with pytest.raises(NotFoundError) as caught:
        load(name)
    assert "\n" not in str(caught.value)
