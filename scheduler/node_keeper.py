"""What administrators ask of the nodes, on its way into the loop: written before anything follows from it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeVar

from .door import Door
from .engine import Engine
from .inbox import LiveInbox
from .node_orders import Window
from .store.maintenance import add_window, cancel_window, list_windows
from .store.sql import SqlStore

T = TypeVar("T")


class NodeKeeper:
    """Cordons, drains and maintenance windows of the live cluster.

    Orders on one node are written with the node, in the loop's next turn; a window is written at once, under a number
    of its own, and from then on marks its nodes. All of it is found again after a restart.

    Args:
        store: the truth.
        door: marks the nodes.
        inbox: where questions to the loop go.
        now: the loop's time, in UTC seconds.
        wake: has the loop take its next turn at once.
    """

    def __init__(
        self, store: SqlStore, door: Door, inbox: LiveInbox, *, now: Callable[[], float], wake: Callable[[], None]
    ) -> None:
        self._store = store
        self._door = door
        self._inbox = inbox
        self._now = now
        self._wake = wake

    # In the loop's thread -----------------------------------------------------------------------------------------

    def recall(self) -> None:
        """Take what the store says. Another control plane may have written meanwhile."""
        with self._store.reader() as connection:
            planned = list_windows(connection, since=self._now())
        known = [change for _, change in self._store.known_nodes()]
        self._door.remember(known, [one.window for one in planned])

    # From any thread ----------------------------------------------------------------------------------------------

    def cordon(self, name: str, reason: str, by: str) -> Future[bool]:
        """No new work on this node. Resolves in the loop and is written with its next turn; as `Door.cordon`."""
        return self._change(lambda now: self._door.cordon(name, reason, now, by=by))

    def drain(
        self, name: str, reason: str, by: str, *, within: float | None = None, deadline: float | None = None
    ) -> Future[bool]:
        """No new work, and what runs there is gone in time; as `Door.drain`.

        Args:
            name: the node.
            reason: why.
            by: who asks.
            within: seconds from now; 0 = at once.
            deadline: or else UTC seconds; None = when it ends by itself.
        """
        return self._change(
            lambda now: self._door.drain(
                name, reason, now, by=by, deadline=deadline if within is None else now + within
            )
        )

    def resume(self, name: str, by: str) -> Future[bool]:
        """Work may go to this node again; as `Door.resume`."""
        return self._change(lambda now: self._door.resume(name, now, by=by))

    def add_window(self, window: Window, *, after: float | None = None) -> Future[Window]:
        """Write a window and let it count. `after`: seconds from now at which it starts, if its own times do not say.

        The future fails with StoreError if it cannot be written.
        """

        def add(now: float) -> Window:
            length = window.end - window.start
            begins = window.start if after is None else now + after
            added = add_window(self._store, replace(window, start=begins, end=begins + length), now)
            self._door.use_windows([*self._door.orders.windows, added], now, by=added.by)
            return added

        return self._change(add)

    def cancel_window(self, number: int, by: str) -> Future[tuple[Window, bool]]:
        """Call a window off; as `cancel_window` of the store."""

        def cancel(now: float) -> tuple[Window, bool]:
            found = cancel_window(self._store, number, now, by)
            left = [one for one in self._door.orders.windows if one.id != number]
            self._door.use_windows(left, now, by=by)
            return found

        return self._change(cancel)

    def _change(self, change: Callable[[float], T]) -> Future[T]:
        def ask(_engine: Engine) -> T:
            found = change(self._now())
            self._wake()  # write it at once
            return found

        return self._inbox.change(ask)
