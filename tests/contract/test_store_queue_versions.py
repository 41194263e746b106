"""Versions of the queue file, on both databases."""

from __future__ import annotations

import pytest

from gpusched.jobs.errors import StoreError
from gpusched.scheduler.store.lease import Lease
from gpusched.scheduler.store.queue_versions import QueueVersion, add_version, list_versions, newest_version, version

TEXT = "# Größe\nqueues:\n  - name: a\n"


def test_a_new_store_has_no_version(sql_store):
    with sql_store.reader() as connection:
        assert newest_version(connection) is None
        assert version(connection, 1) is None
        assert list_versions(connection) == []


def test_versions_come_back_as_they_were_written_the_newest_first(sql_store):
    first = add_version(sql_store, time=1.5, user="ada", note="", file="queues.yaml", text=TEXT)
    second = add_version(sql_store, time=2.5, user="bob\0", note="rollback to 0", file="", text="")
    assert first == QueueVersion(1, 1.5, "ada", "", "queues.yaml", TEXT)
    assert (second.number, second.user) == (2, "bob\ufffd")
    with sql_store.reader() as connection:
        assert newest_version(connection) == second
        assert version(connection, 1) == first
        assert list_versions(connection) == [second, first]
        assert list_versions(connection, limit=1) == [second]


def test_who_lost_the_lease_writes_no_version(made_url, open_store):
    old, new = open_store(made_url), open_store(made_url)
    first = Lease(old, "old")
    first.acquire()
    first.release()  # as if it had run out
    Lease(new, "new").acquire()
    with pytest.raises(StoreError, match="lost its lease"):
        add_version(old, time=1.0, user="ada", note="", file="f", text=TEXT)
    add_version(new, time=1.0, user="ada", note="", file="f", text=TEXT)
    with old.reader() as connection:
        assert [found.number for found in list_versions(connection)] == [1]
