"""One control plane at a time."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

import pytest

from gpusched.jobs.errors import StoreError
from gpusched.jobs.events import Event, Kind
from gpusched.scheduler.store import lease as lease_module
from gpusched.scheduler.store.lease import Lease, LeaseHeldError, boot

NOW = 1_700_000_000.0


class Steady:
    """A clock that nobody sets, moved by the test."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def steady():
    return Steady()


@pytest.fixture
def lease_of(open_store, made_url, steady):
    """A lease as another control plane on the same database has it, on a store of its own."""

    def make(owner, ttl=10, **more):
        return Lease(open_store(made_url), owner, ttl, steady=steady, **more)

    return make


def refused(lease):
    with pytest.raises(LeaseHeldError) as caught:
        lease.acquire()
    return caught.value


def test_the_first_control_plane_gets_the_lease_and_the_second_is_told_who_has_it_and_where(lease_of):
    first, second = lease_of("a", url="http://a:6810"), lease_of("b")
    assert first.holder() is None
    held = first.acquire().holder
    assert (held.pid, held.host, held.url) == (os.getpid(), socket.gethostname(), "http://a:6810")
    error = refused(second)
    assert f"process {os.getpid()} on {socket.gethostname()}, since 20" in error.message
    assert (error.holder, error.leader) == (held, "http://a:6810")
    assert second.holder() == held
    assert second._store.fence is None


def test_a_lease_lasts_as_long_as_it_is_renewed(lease_of, steady):
    first, second = lease_of("a"), lease_of("b")
    first.acquire()
    for _ in range(5):
        refused(second)
        steady.time += 8
        assert first.renew()
    refused(second)
    steady.time += 9.9
    refused(second)
    steady.time += 0.2
    assert second.acquire().holder.owner == "b"
    assert not first.renew()


def test_who_has_just_come_waits_a_whole_term_whatever_the_row_says_of_times(lease_of, steady):
    """Clocks of two machines are never compared: only what is seen to stand still counts as dead."""
    lease_of("a").acquire()
    steady.time += 1e6
    late = lease_of("b")
    refused(late)
    steady.time += 9.9
    refused(late)
    assert late.free_at() == pytest.approx(steady.time + 0.1)
    steady.time += 0.2
    late.acquire()


@pytest.mark.parametrize("by", [-7200.0, 7200.0])
def test_a_clock_that_is_set_neither_ends_a_lease_nor_keeps_a_dead_one(lease_of, steady, monkeypatch, by):
    first, second = lease_of("a"), lease_of("b")
    first.acquire()
    refused(second)
    true_time = time.time
    monkeypatch.setattr(lease_module.time, "time", lambda: true_time() + by)
    steady.time += 5
    refused(second)
    assert first.renew()
    steady.time += 9
    refused(second)
    steady.time += 10
    assert second.acquire().holder.owner == "b"


def test_whoever_lost_the_lease_can_commit_nothing_more(lease_of, steady):
    first, second = lease_of("a"), lease_of("b")
    mine, theirs = first._store, second._store
    first.acquire()
    mine.commit(events=[Event(NOW, Kind.HELD, 1)])
    refused(second)
    steady.time += 11
    assert not first.sure()
    second.acquire()
    with pytest.raises(StoreError, match=f"lost its lease .* process {os.getpid()} on") as caught:
        mine.commit(events=[Event(NOW, Kind.HELD, 2)])
    assert caught.value.code == "lease_lost"
    theirs.commit(events=[Event(NOW, Kind.HELD, 3)])
    assert [event.job for _, event in theirs.events()] == [1, 3]


def test_a_lease_that_was_given_back_is_free_at_once(lease_of):
    first, second = lease_of("a"), lease_of("b")
    first.acquire()
    first.release()
    assert first.holder() is None
    assert second.acquire().holder.owner == "b"
    first.release()  # changes nothing: it is another's now
    assert second.holder() is not None
    assert second.renew()


def test_taking_a_lease_again_keeps_its_term(lease_of, steady):
    lease = lease_of("a")
    first = lease.acquire().holder
    steady.time += 5
    again = lease.acquire().holder
    assert (again.term, again.since) == (first.term, first.since)


def test_the_jobs_of_a_database_have_one_name_on_a_cluster_whoever_leads(lease_of):
    assert [lease_of(owner).identity() for owner in ("a", "b", "a")] == ["a", "a", "a"]


def test_who_comes_next_on_the_machine_sees_whether_the_clock_was_set_in_between(lease_of, steady):
    first, second = lease_of("a", now=lambda: NOW), lease_of("b")
    assert first.acquire().before is None
    first.renew()
    refused(second)
    steady.time += 11
    taken = second.acquire()
    assert taken.before.owner == "a"
    assert taken.trace.jump(NOW, boot()) == pytest.approx(0, abs=30)
    assert taken.trace.jump(NOW + 7200, boot()) == pytest.approx(7200, abs=30)
    assert taken.trace._replace(boot="another start of the machine").jump(NOW + 7200, boot()) == 0


CRASHES = """
import os, sys
from gpusched.scheduler.store.lease import Lease
from gpusched.scheduler.store.sql import SqlStore
store = SqlStore(sys.argv[1])
print(Lease(store, "a", ttl=1000).acquire().holder.term, flush=True)
os._exit(1)
"""


def test_after_a_crash_the_same_owner_has_its_lease_back_at_once_and_others_wait(lease_of, made_url, start_python):
    said, complaints = start_python(CRASHES, made_url).communicate(timeout=60)
    assert said, complaints
    refused(lease_of("b"))
    assert lease_of("a").acquire().holder.term == int(said) + 1


HOLDS = """
import sys
from gpusched.scheduler.store.lease import Lease
from gpusched.scheduler.store.sql import SqlStore
store = SqlStore(sys.argv[1])
Lease(store, "a", ttl=1000).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_the_same_owner_twice_is_still_one_at_a_time(lease_of, made_url, start_python):
    """Two processes under one name: the second is refused while the first lives."""
    process = start_python(HOLDS, made_url)
    assert process.stdout.readline() == "held\n"
    assert refused(lease_of("a")).holder.pid == process.pid


def test_of_many_that_ask_at_once_one_gets_it(lease_of):
    leases = [lease_of(f"owner-{number}") for number in range(6)]
    got, told = [], []
    start = threading.Barrier(len(leases))

    def ask(lease):
        start.wait(30)
        try:
            got.append(lease.acquire().holder)
        except LeaseHeldError as error:
            told.append(error.holder)

    threads = [threading.Thread(target=ask, args=(lease,)) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(got) == 1
    assert told == got * 5


FROZEN = """
import os, signal, sys
from sqlalchemy import event
from gpusched.jobs.events import Event, Kind
from gpusched.scheduler.store.lease import Lease
from gpusched.scheduler.store.sql import SqlStore
store = SqlStore(sys.argv[1])
Lease(store, "a", ttl=1).acquire()
event.listen(store.database.writer, "commit", lambda *_: os.kill(os.getpid(), signal.SIGSTOP))
print("held", flush=True)
try:
    store.commit(events=[Event(1.0, Kind.HELD, 1)])
    print("written", flush=True)
except Exception as error:
    print(f"refused: {error}", flush=True)
"""


@pytest.mark.postgres
def test_a_leader_frozen_inside_a_transaction_holds_up_nobody_and_wakes_to_a_refusal(
    postgres, open_store, start_python
):
    """Between its look at the lease and its commit it has the row locked; PostgreSQL lets go of a silent writer."""
    url = postgres.migrated_database()
    process = start_python(FROZEN, url)
    assert process.stdout.readline() == "held\n"
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    other = open_store(url)
    lease, end = Lease(other, "b", ttl=1), time.monotonic() + 30
    while lease._store.fence is None:
        assert time.monotonic() < end, "the frozen leader kept the lease"
        try:
            lease.acquire()
        except (LeaseHeldError, StoreError):
            time.sleep(0.05)
    other.commit(events=[Event(2.0, Kind.HELD, 2)])
    process.send_signal(signal.SIGCONT)
    assert process.stdout.readline().startswith("refused")
    assert [event.job for _, event in other.events()] == [2]
