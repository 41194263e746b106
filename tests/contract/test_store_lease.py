"""One control plane at a time."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from gpusched.jobs.errors import StoreError
from gpusched.jobs.events import Event, Kind
from gpusched.scheduler.store.lease import Lease, LeaseHeldError

NOW = 1_700_000_000.0


def test_the_first_control_plane_gets_the_lease_and_the_second_is_told_who_has_it(sql_store, open_store, made_url):
    assert Lease(sql_store, "a").holder(NOW) is None
    held = Lease(sql_store, "a", ttl=10).acquire(NOW)
    assert (held.pid, held.host, held.since, held.expires) == (os.getpid(), socket.gethostname(), NOW, NOW + 10)
    other = open_store(made_url)
    with pytest.raises(
        LeaseHeldError, match=rf"process {os.getpid()} on {socket.gethostname()}, since 2023-11-14 22:13"
    ):
        Lease(other, "b").acquire(NOW + 9)
    assert Lease(other, "b").holder(NOW + 9) == held
    assert other.fence is None


def test_a_lease_lasts_as_long_as_it_is_renewed(sql_store, open_store, made_url):
    first, second = Lease(sql_store, "a", ttl=10), Lease(open_store(made_url), "b", ttl=10)
    first.acquire(NOW)
    assert first.renew(NOW + 8)
    with pytest.raises(LeaseHeldError):
        second.acquire(NOW + 17)
    assert second.acquire(NOW + 18).since == NOW + 18
    assert not first.renew(NOW + 18)


def test_whoever_lost_the_lease_can_commit_nothing_more(sql_store, open_store, made_url):
    other = open_store(made_url)
    Lease(sql_store, "a", ttl=10).acquire(NOW)
    sql_store.commit(events=[Event(NOW, Kind.HELD, 1)])
    Lease(other, "b", ttl=10).acquire(NOW + 11)
    with pytest.raises(StoreError, match=f"lost its lease .* process {os.getpid()} on"):
        sql_store.commit(events=[Event(NOW, Kind.HELD, 2)])
    other.commit(events=[Event(NOW, Kind.HELD, 3)])
    assert [event.job for _, event in other.events()] == [1, 3]


def test_a_lease_that_was_given_back_is_free_at_once(sql_store, open_store, made_url):
    first, second = Lease(sql_store, "a"), Lease(open_store(made_url), "b")
    first.acquire(NOW)
    first.release()
    assert first.holder(NOW) is None
    assert second.acquire(NOW + 1).owner == "b"
    first.release()  # changes nothing: it is another's now
    assert second.holder(NOW + 1) is not None
    assert second.renew(NOW + 2)


def test_taking_a_lease_again_keeps_its_term(sql_store):
    lease = Lease(sql_store, "a", ttl=10)
    first = lease.acquire(NOW)
    again = lease.acquire(NOW + 5)
    assert (again.term, again.since, again.expires) == (first.term, NOW, NOW + 15)


def test_after_a_crash_the_same_owner_has_its_lease_back_at_once_and_others_wait(sql_store, made_url, start_python):
    crashes = """
import os, sys
from gpusched.scheduler.store.lease import Lease
from gpusched.scheduler.store.sql import SqlStore
store = SqlStore(sys.argv[1])
print(Lease(store, "a", ttl=1000).acquire(float(sys.argv[2])).term, flush=True)
os._exit(1)
"""
    said, complaints = start_python(crashes, made_url, NOW).communicate(timeout=60)
    assert said, complaints
    with pytest.raises(LeaseHeldError):
        Lease(sql_store, "b").acquire(NOW + 1)
    assert Lease(sql_store, "a").acquire(NOW + 1).term == int(said) + 1


def test_the_same_owner_twice_is_still_one_at_a_time(sql_store, made_url, start_python):
    """Two processes under one name: the second is refused while the first lives."""
    holds = """
import sys
from gpusched.scheduler.store.lease import Lease
from gpusched.scheduler.store.sql import SqlStore
store = SqlStore(sys.argv[1])
Lease(store, "a", ttl=1000).acquire(float(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""
    process = start_python(holds, made_url, NOW)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(LeaseHeldError, match=f"process {process.pid} "):
        Lease(sql_store, "a").acquire(NOW + 1)


def test_of_many_that_ask_at_once_one_gets_it(open_store, made_url):
    stores = [open_store(made_url) for _ in range(6)]
    got, refused = [], []
    start = threading.Barrier(len(stores))

    def ask(store, owner):
        start.wait(30)
        try:
            got.append(Lease(store, owner).acquire(NOW))
        except LeaseHeldError as error:
            refused.append(error.holder)

    threads = [threading.Thread(target=ask, args=(store, f"owner-{i}")) for i, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(got) == 1
    assert refused == got * 5
