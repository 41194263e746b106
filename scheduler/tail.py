"""The end of the journal, read once for all who follow it: thousands of streams cost one question a commit."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from .views import JSON

MOST = 32
"""Places in the journal at which answers are kept: those who follow stand at the same few."""


class Tail:
    """Answers of this moment, by where the asker stands. Used by one event loop.

    Attributes:
        reads: how often the journal was really asked.
    """

    def __init__(self) -> None:
        self.reads = 0
        self._kept: OrderedDict[int, tuple[int, asyncio.Task[list[JSON]]]] = OrderedDict()

    async def after(self, place: int, commits: int, read: Callable[[], Awaitable[list[JSON]]]) -> list[JSON]:
        """The events after a place.

        Args:
            place: sequence number.
            commits: how many there were when this was asked: an answer from before a later one is not given.
            read: asks the journal.
        """
        known = self._kept.get(place)
        if known is not None and known[0] == commits and not (known[1].done() and known[1].exception()):
            return await asyncio.shield(known[1])
        self.reads += 1
        task = asyncio.ensure_future(read())
        self._kept[place] = (commits, task)
        self._kept.move_to_end(place)
        while len(self._kept) > MOST:
            self._kept.popitem(last=False)
        return await asyncio.shield(task)
