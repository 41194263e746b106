"""Faults that a control plane may have, planted one by one: each is caught by a storm of the test run."""

from __future__ import annotations

import logging

import pytest
from storm import Storm
from storm_link import Link
from storm_plan import forecast
from storm_planes import Disk
from storm_replay import line_for, shrink, weather

from gpusched.cluster.pool import Pool
from gpusched.jobs.events import MOVES, Kind, Move
from gpusched.jobs.job import State
from gpusched.scheduler import engine as engines
from gpusched.scheduler.door import Door
from gpusched.scheduler.engine import Engine
from gpusched.scheduler.inbox import LiveInbox


def effects_before_the_write(patch):
    """What is not written yet is done already."""
    write = Engine._write

    def does_first(self):
        if self._starts or self._stops:
            self._do(0.0)
        write(self)

    patch.setattr(Engine, "_write", does_first)


def stops_are_forgotten_over_a_restart(patch):
    """What was being stopped when the control plane died is not told to go again."""
    recover = Engine.recover

    def forgets(self, *state):
        holding = recover(self, *state)
        self._stops.clear()
        return holding

    patch.setattr(Engine, "recover", forgets)
    # The cluster would remember the order; here it never came.
    patch.setattr(Link, "die", lambda self, _arrived, die=Link.die: die(self, 0.0))


def successors_are_stopped(patch):
    """As it was until a storm found it: a stop after a restart meets whatever attempt is there by then."""
    patch.setattr(engines, "_TOLD_TO_GO", frozenset(State))


def gpus_are_given_back_at_the_order_to_stop(patch):
    """The GPUs of a job are free when it is told to go, not when it is gone."""
    do = Engine._do

    def gives_early(self, now):
        for job in self._stops:
            self.pool.give(job.shape, job.placement)
        do(self, now)

    patch.setattr(Engine, "_do", gives_early)


def old_news_counts(patch):
    """News of an earlier attempt is taken for news of the present one."""
    believe = Engine._believe_attempts

    def renumbers(self, events):
        believe(
            self,
            [event._replace(attempt=self.jobs[event.job].attempt) for event in events if event.job in self.jobs],
        )

    patch.setattr(Engine, "_believe_attempts", renumbers)


def a_lost_attempt_is_a_success(patch):
    """The table of moves takes the end of a lost attempt for success."""
    patch.setitem(MOVES[State.RUNNING], Kind.LOST, Move(State.SUCCEEDED, "planted"))


def refused_while_leaving_is_ignored(patch):
    """As it was until a storm found it: who was told to go and is then refused is waited for for ever."""
    believe = Engine._believe_attempts

    def ignores(self, events):
        going = {State.STOPPING, State.PREEMPTING}
        states = {number: job.state for number, job in self.jobs.items()}
        believe(self, [one for one in events if one.kind is not Kind.REFUSED or states.get(one.job) not in going])

    patch.setattr(Engine, "_believe_attempts", ignores)


def nothing_is_told_twice(patch):
    """After a failed commit the new engine is not told what the old one had heard."""
    patch.setattr(Door, "repeat", lambda _self: None)


def numbers_are_given_twice(patch):
    """As it was until a storm found it: jobs are numbered before the store was read."""
    patch.setattr(LiveInbox, "number_from", lambda self, last: setattr(self, "_last_id", max(self._last_id, last)))


def a_commit_tears(patch):
    """Of a commit that failed half is there."""
    commit = Disk.commit

    def tears(self, *, jobs=(), events=(), decisions=(), nodes=()):
        if self.gate.sick and not self.gate.written:
            self.journal.extend(events)
        commit(self, jobs=jobs, events=events, decisions=decisions, nodes=nodes)

    patch.setattr(Disk, "commit", tears)


def a_gang_is_given_back_in_part(patch):
    """Of a gang only the first piece is given back."""
    give = Pool.give
    patch.setattr(Pool, "give", lambda self, shape, placement: give(self, shape, placement[:1]))


def the_past_is_told_last(patch):
    """As it was until a storm found it: books hear of earlier attempts after those that run now."""

    def last(self, past):
        for book in self.queue.books.values():
            for job, ended in past:
                book.started(job)
                book.ended(job, ended)

    patch.setattr(Engine, "remember", last)


PLANTED = [
    effects_before_the_write,
    stops_are_forgotten_over_a_restart,
    successors_are_stopped,
    gpus_are_given_back_at_the_order_to_stop,
    old_news_counts,
    a_lost_attempt_is_a_success,
    refused_while_leaving_is_ignored,
    nothing_is_told_twice,
    numbers_are_given_twice,
    a_commit_tears,
    a_gang_is_given_back_in_part,
]


def first_broken(folder, store="memory", seeds=180):
    """The first storm of the test run that breaks."""
    logging.disable(logging.CRITICAL)
    try:
        return next((seed for seed in range(seeds) if weather(seed, store, folder) is not None), None)
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_caught(plant, monkeypatch, tmp_path):
    plant(monkeypatch)
    assert first_broken(tmp_path) is not None


def test_a_fault_in_what_a_policy_is_told_of_the_past_is_caught_on_a_real_database(monkeypatch, tmp_path):
    the_past_is_told_last(monkeypatch)
    assert first_broken(tmp_path, "sqlite", 20) is not None


def test_a_storm_is_the_same_twice_over_to_the_last_line(tmp_path):
    told = []
    for _ in range(2):
        lines = []
        storm = Storm(7, "memory", tmp_path, lines.append)
        storm.run()
        told.append((lines, [repr(event) for event in storm.disk.journal], repr(storm.disk.choices)))
    assert told[0] == told[1]
    assert forecast(7, 20) == forecast(7, 20)
    assert forecast(7, 20) != forecast(8, 20)


def test_a_broken_storm_is_made_short_and_its_line_says_so(monkeypatch, tmp_path):
    a_gang_is_given_back_in_part(monkeypatch)
    seed = first_broken(tmp_path)
    broken = weather(seed, "memory", tmp_path)
    keep = shrink(seed, "memory", tmp_path, broken)
    assert len(keep) <= 5
    assert type(weather(seed, "memory", tmp_path, keep)) is type(broken)
    assert line_for(seed, "memory", keep).endswith(f"--keep {','.join(map(str, keep))} -v")
