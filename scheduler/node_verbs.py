"""The verbs on nodes: what they have and hold, cordon, drain, resume, maintenance windows, and their history."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import NamedTuple

from sqlalchemy import Connection

from ..jobs.errors import NotFoundError
from .desk import Desk, RequestError
from .node_orders import LEAD, Window, plain
from .node_views import FLAP_TIME, node_view, window_view
from .store.cluster import held_gpus, latest_gpus, list_nodes
from .store.maintenance import list_windows
from .store.node_events import node_events, times_left
from .views import JSON, event_view, iso, used_view

FRESH = 30.0
"""Seconds after which a sample is no picture of the present any more."""
LONGEST = 10 * 365 * 86400.0
"""Seconds that a drain or a window may lie ahead or last: more is a slip."""


class WantedWindow(NamedTuple):
    """A maintenance window that is asked for.

    Attributes:
        nodes, labels, everywhere: which nodes, as in `Window`.
        duration: seconds. start: UTC seconds; None = `after` seconds from now.
        lead: seconds, see `Window`. reason, by: why, and who asks.
    """

    nodes: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    everywhere: bool
    duration: float
    start: float | None
    after: float | None
    lead: float = LEAD
    reason: str = ""
    by: str = ""


class NodeVerbs(Desk):
    """Nodes."""

    async def nodes(self, *, gone: bool = False) -> list[JSON]:
        """Every node, what is free of it, and who holds the rest."""
        now = self.now()
        infos, held, gpus, left = await self.read(
            lambda connection: (
                list_nodes(connection, gone=gone),
                held_gpus(connection),
                latest_gpus(connection, now - FRESH),
                times_left(connection, now - FLAP_TIME),
            )
        )
        picture = await self.picture()
        return [
            node_view(
                info,
                [piece for piece in held if piece.node == info.node.name],
                picture.free.get(info.node.name) if info.present else None,
                used_view([gpu for gpu in gpus if gpu.node == info.node.name]),
                left=left.get(info.node.name, 0),
            )
            for info in infos
        ]

    async def node(self, name: str, *, limit: int = 100) -> JSON:
        """One node with its history, the oldest of the last `limit` lines first.

        Raises:
            NotFoundError: there never was one of this name.
        """
        found = await self._look(name)
        lines = await self.read(lambda connection: node_events(connection, name, limit=limit))
        return {**found, "events": [event_view(line) for line in lines]}

    async def cordon(self, name: str, reason: str, *, by: str = "") -> JSON:
        """No new work for a node; what runs there goes on."""
        return await self._ordered(name, self.controller.nodes.cordon(name, reason, by))

    async def drain(
        self, name: str, reason: str, *, by: str = "", within: float | None = None, deadline: float | None = None
    ) -> JSON:
        """No new work for a node, and what runs there is gone in time: it ends by itself, or is moved.

        Args:
            name: the node.
            reason: why.
            by: who asks.
            within: seconds from now; 0 = at once.
            deadline: or else UTC seconds; None = when it ends by itself.

        Raises:
            NotFoundError: no such node.
            ConflictError: the cluster has not reported it since the control plane started.
        """
        if within is not None and deadline is not None:
            raise RequestError("`within` and `deadline` exclude each other")
        if within is not None and not 0 <= within <= LONGEST:
            raise RequestError(f"within={within:g} is out of range", hint="seconds from now, at least 0")
        if deadline is not None and deadline > self.now() + LONGEST:
            raise RequestError("the deadline is too far away", hint="UTC seconds, or ISO 8601")
        marked = self.controller.nodes.drain(name, reason, by, within=within, deadline=deadline)
        return await self._ordered(name, marked)

    async def resume(self, name: str, *, by: str = "") -> JSON:
        """A node takes work again: cordon and drain are over. A maintenance window goes on."""
        return await self._ordered(name, self.controller.nodes.resume(name, by))

    async def windows(self, *, over: bool = False) -> list[JSON]:
        """Maintenance windows by their start; those that are over or were cancelled too if `over`."""
        now = self.now()

        def ask(connection: Connection) -> list[JSON]:
            there = [info.node for info in list_nodes(connection)]
            planned = list_windows(connection, since=None if over else now)
            return [window_view(one, now, there) for one in planned]

        return await self.read(ask)

    async def add_window(self, wanted: WantedWindow) -> JSON:
        """Plan a maintenance window; when this returns it is on disk.

        Raises:
            NotFoundError: it names a node that there never was.
        """
        now = self.now()
        if (bool(wanted.nodes) + bool(wanted.labels) + wanted.everywhere) != 1:
            raise RequestError("give nodes, labels or all, one of them")
        if not 0 < wanted.duration <= LONGEST or not wanted.lead >= 0:
            raise RequestError("a window lasts longer than 0 s, and its lead is at least 0 s")
        if (wanted.start is None) == (wanted.after is None):
            raise RequestError("say when it starts: `start` or `after`, one of them")
        start = wanted.start if wanted.start is not None else now + (wanted.after or 0.0)
        if start + wanted.duration <= now:
            raise RequestError(f"the window would have ended at {iso(start + wanted.duration)}")
        if start > now + LONGEST:
            raise RequestError(f"the window would start at {iso(start)}", hint="that is too far away")
        known = {info.node.name for info in await self.read(lambda connection: list_nodes(connection, gone=True))}
        if strange := [name for name in wanted.nodes if name not in known]:
            raise NotFoundError(f"there is no node {strange[0]!r}", hint="`gpusched nodes` lists all")
        window = Window(
            0,
            start,
            start + wanted.duration,
            wanted.nodes,
            wanted.labels,
            everywhere=wanted.everywhere,
            reason=plain(wanted.reason),
            by=wanted.by,
            lead=wanted.lead,
        )
        added = await asyncio.wrap_future(self.controller.nodes.add_window(window))
        return await self._window(added.id)

    async def cancel_window(self, number: int, *, by: str = "") -> JSON:
        """Call a window off; its nodes take work again.

        Raises:
            NotFoundError: there is none of this number.
        """
        _, changed = await asyncio.wrap_future(self.controller.nodes.cancel_window(number, by))
        return {**await self._window(number), "changed": changed}

    async def _window(self, number: int) -> JSON:
        await self.ask(lambda _engine: None)  # one turn of the loop: its nodes are marked
        self._picture = None
        return next(window for window in await self.windows(over=True) if window["id"] == number)

    async def _ordered(self, name: str, marked: Future[bool]) -> JSON:
        """The node after one more turn of the loop, and whether the order changed anything."""
        changed = await asyncio.wrap_future(marked)
        await self.ask(lambda _engine: None)  # it is written
        self._picture = None
        return {**await self._look(name), "changed": changed}

    async def _look(self, name: str) -> JSON:
        found = next((node for node in await self.nodes(gone=True) if node["name"] == name), None)
        if found is None:
            raise NotFoundError(f"there is no node {name!r}", hint="`gpusched nodes` lists all")
        return found
