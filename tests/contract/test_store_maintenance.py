"""Maintenance windows, orders on nodes and the history of nodes, on both databases."""

from __future__ import annotations

import pytest

from gpusched.cluster.backend import Node, NodeChange
from gpusched.jobs.errors import NotFoundError, StoreError
from gpusched.jobs.events import Event, Kind
from gpusched.scheduler.node_orders import NodeOrders, Order, Window
from gpusched.scheduler.store.lease import Lease
from gpusched.scheduler.store.maintenance import add_window, cancel_window, list_windows
from gpusched.scheduler.store.node_events import node_events, times_left

SOON = Window(0, 100.5, 200.0, ("n1", "n2"), reason="Größe\0", by="ann", lead=30.0)
RACK = Window(0, 50.0, 60.0, labels=(("rack", "7"),))


def listed(store, **how):
    with store.reader() as connection:
        return list_windows(connection, **how)


def test_windows_come_back_as_they_were_written_by_their_start_each_with_its_line_in_the_journal(sql_store):
    first, second = add_window(sql_store, SOON, 10.0), add_window(sql_store, RACK, 11.0)
    assert (first.id, second.id) == (1, 2)
    assert (first.reason, first.added) == ("Größe\ufffd", 10.0)
    assert [one.window for one in listed(sql_store)] == [second, first]
    assert [one.window for one in listed(sql_store, since=60.0)] == [first], "the other is over"
    told = [event for _, event in sql_store.events()]
    assert [(event.kind, event.job, event.data["what"], event.data["window"]) for event in told] == [
        (Kind.NODE, 0, "maintenance added", 1),
        (Kind.NODE, 0, "maintenance added", 2),
    ]


def test_a_window_is_called_off_once(sql_store):
    add_window(sql_store, SOON, 10.0)
    assert cancel_window(sql_store, 1, 20.0, "bob")[1]
    assert not cancel_window(sql_store, 1, 30.0, "bob")[1]
    assert [one.cancelled for one in listed(sql_store)] == [20.0]
    assert listed(sql_store, since=0.0) == []
    with pytest.raises(NotFoundError, match="no maintenance window 9"):
        cancel_window(sql_store, 9, 30.0, "bob")
    told = [event.data["what"] for _, event in sql_store.events()]
    assert told == ["maintenance added", "maintenance cancelled"]


def test_one_that_is_over_is_not_called_off(sql_store):
    add_window(sql_store, SOON, 10.0)
    assert not cancel_window(sql_store, 1, 200.0, "bob")[1]


def test_who_lost_the_lease_plans_nothing(made_url, open_store):
    old, new = open_store(made_url), open_store(made_url)
    lease = Lease(old, "old")
    lease.acquire()
    lease.release()
    Lease(new, "new").acquire()
    with pytest.raises(StoreError, match="lost its lease"):
        add_window(old, SOON, 10.0)
    assert listed(new) == []


def test_orders_lie_with_their_node_and_are_found_again(sql_store):
    orders = NodeOrders()
    orders.drains["n1"] = Order("ann", "fan", 5.0, 99.5)
    orders.windows = (Window(4, 50.0, 60.0, everywhere=True, lead=7.0),)
    node = orders.mark(Node("n1", 8, "H100", labels={"rack": "7"}), 10.0)
    sql_store.commit(nodes=[(0, NodeChange(10.0, node))])
    ((number, change),) = sql_store.known_nodes()
    assert (number, change.node) == (0, node)
    assert (change.node.closes, change.node.lead, change.node.schedulable) == (50.0, 7.0, False)
    assert NodeOrders([change]).drains == orders.drains


def test_a_nodes_history_is_its_own_and_how_often_it_left_is_counted(sql_store):
    lines = [
        (1.0, "n1", "joined"),
        (2.0, "n2", "joined"),
        (3.0, "n1", "left"),
        (4.0, "n1", "returned"),
        (5.0, "n1", "left"),
    ]
    sql_store.commit(events=[Event(at, Kind.NODE, 0, 0, {"node": node, "what": what}) for at, node, what in lines])
    with sql_store.reader() as connection:
        assert [line.data["what"] for line in node_events(connection, "n1")] == ["joined", "left", "returned", "left"]
        assert [line.time for line in node_events(connection, "n1", limit=2)] == [4.0, 5.0]
        assert len(node_events(connection)) == 5
        assert times_left(connection, 0.0) == {"n1": 2}
        assert times_left(connection, 4.0) == {"n1": 1}
