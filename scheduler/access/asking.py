"""The request that is being answered: who asks, for what. Every change reads here in whose name it is written down."""

from __future__ import annotations

import unicodedata
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ...jobs.events import Event, Kind
from .model import Caller, Role
from .permissions import Rule

LONGEST = 200
"""Characters of what a line of the trail is about."""


@dataclass(slots=True)
class Asking:
    """One request.

    Attributes:
        caller: who asks. rule: for what.
        target: what it is about, in words such as `job 12`.
        settled: its line of the trail is on its way with what it changes, or it changes nothing.
        on_behalf: in whose name, if not the caller's.
    """

    caller: Caller
    rule: Rule
    target: str = ""
    settled: bool = False
    on_behalf: str = ""

    def line(self, target: str = "", outcome: str = "done") -> dict[str, Any]:
        """What the audit trail says of it. Never what the request said: that may hold secrets."""
        caller = self.caller
        line = {
            "user": short(caller.user),
            "role": caller.role.value,
            "token": caller.token,
            "from": caller.address,
            "verb": self.rule.verb,
            "on": short(target or self.target),
            "outcome": outcome,
        }
        return {**line, "for": short(self.on_behalf)} if self.on_behalf else line

    def event(self, now: float, target: str = "") -> Event:
        """Its line of the journal, to be written with what it changes."""
        self.settled = True
        return Event(now, Kind.AUDIT, 0, 0, self.line(target))

    def name(self, claimed: str = "") -> str:
        """In whose name it is done: the caller's; from operator up, another's may be given."""
        if not claimed or claimed == self.caller.user or not self.caller.role.covers(Role.OPERATOR):
            return self.caller.user
        self.on_behalf = claimed
        return claimed


ASKING: ContextVar[Asking | None] = ContextVar("asking", default=None)
"""None = nobody asks over HTTP: the program that the scheduler is part of does."""


def short(words: str) -> str:
    """Words from outside, fit for a line: without control characters, and not long."""
    clean = "".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in words[: LONGEST + 1])
    return clean if len(clean) <= LONGEST else clean[: LONGEST - 1] + "…"


def current() -> Asking:
    """The request that is being answered; for what is reached over HTTP only."""
    asking = ASKING.get()
    assert asking is not None, "the gate sets it for every request"
    return asking
