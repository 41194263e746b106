"""The assertions of a file: each metric, bound and selection checked, with what the trace has at hand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from ...jobs.spec.fields import shown
from ...jobs.spec.problems import Path
from ...jobs.traces.trace import Trace
from ...policies.catalog import load
from ...policies.tree import Tree
from ..report import Window
from .metrics import Measure, find, hint
from .model import MOST_ASSERTIONS, AssertionEntry
from .noting import Noting
from .suite import Assertion, Bound, Selection

ABSOLUTE = ("below", "at_most", "above", "at_least")
RELATIVE = ("at_most_worse", "at_least_better")


@dataclass(frozen=True, slots=True)
class People:
    """Whose jobs a trace has. Attributes: queues: each with the names of those at and below it that have jobs."""

    users: frozenset[str]
    queues: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, trace: Trace, tree: Tree | None) -> People:
        """Of a trace, whose jobs go where the tree says."""
        users = frozenset(job.user for job in trace.jobs)
        names = {job.queue for job in trace.jobs}
        if tree is None:
            return cls(users, {name: frozenset({name}) for name in names})
        below: dict[str, set[str]] = {}
        for home in {tree.home(name) for name in names} - {""}:
            for node in tree.path(home):
                below.setdefault(node.name, set()).add(home)
        return cls(users, {name: frozenset(homes) for name, homes in below.items()})


class Entries:
    """Reads them.

    Args:
        noting: takes their problems.
        policies: the names of the file's; empty = they have problems of their own.
        window: of assertions that name none.
        people: whose jobs the trace has; None = it could not be read.
        local: a policy's name with the path of its file from here.
    """

    def __init__(
        self,
        noting: Noting,
        policies: tuple[str, ...],
        *,
        window: Window,
        people: People | None,
        local: Callable[[str], str],
    ) -> None:
        self._noting = noting
        self._policies = policies
        self._window = window
        self._people = people
        self._local = local

    def read(self, listed: object) -> tuple[Assertion, ...]:
        """Those without problems."""
        if not isinstance(listed, list) or not listed:
            said = "is required" if listed is None else "must be a list of assertions"
            said = "has no assertion in it" if listed == [] else said
            self._noting.add(("assert",), said, "write `- metric: queueing_delay_p95` and `below: 30m` below it")
            return ()
        if len(listed) > MOST_ASSERTIONS:
            self._noting.add(("assert",), f"has more than {MOST_ASSERTIONS:,} assertions")
            return ()
        made = []
        for number, one in enumerate(listed):
            at: Path = ("assert", number)
            entry = self._noting.checked(AssertionEntry, one, at) or self._noting.mended(AssertionEntry, one)
            if entry is not None:
                made.append(self._assertion(entry, at, keys=tuple(one)))
        return tuple(assertion for assertion in made if assertion is not None)

    def _assertion(self, entry: AssertionEntry, at: Path, keys: Collection[str]) -> Assertion | None:
        add, root = self._noting.add, self._noting.origin.root
        before = len(self._noting.problems)
        measure = find(entry.metric)
        if measure is None:
            add((*at, "metric"), f"there is no metric {shown(entry.metric)}", hint(entry.metric))
        policies = self._policies if entry.policy is None else tuple(self._local(name) for name in entry.policy)
        for name in policies if self._policies else ():
            if name not in self._policies:
                add((*at, "policy"), f"{name} is not among the policies", f"they are {', '.join(self._policies)}")
        selection = self._selection(entry, at)
        window = self._window
        if measure is not None and measure.whole and str(selection):
            key = next(key for key in ("queue", "user", "gpus") if getattr(entry, key) is not None)
            add((*at, key), f"{entry.metric} is of the whole cluster", f"leave `{key}` out", on_key=True)
        if entry.window is not None:
            text = entry.window
            window = self._noting.at((*at, "window"), lambda: Window.parse(text)) or window
        bounds = self._bounds(entry, at, measure, keys)
        if len(self._noting.problems) > before or measure is None:
            return None
        line = root.find(at).line if root is not None else 0
        own = entry.window is not None
        name = entry.name or _in_words(measure, bounds, selection, window if own else None)
        return Assertion(name, measure, bounds, selection, window, policies, line)

    def _selection(self, entry: AssertionEntry, at: Path) -> Selection:
        people = self._people
        if people is None:
            return Selection(entry.queue, frozenset(), entry.user, entry.gpus)
        queues = people.queues.get(entry.queue or "", frozenset())
        for key, name, known in (("queue", entry.queue, people.queues), ("user", entry.user, people.users)):
            if name is not None and name not in known:
                told = _one_of(f"{key}s", name, sorted(filter(None, known)))
                self._noting.add((*at, key), f"the trace has no job of {key} {name}", told)
        return Selection(entry.queue, queues, entry.user, entry.gpus)

    def _bounds(
        self, entry: AssertionEntry, at: Path, measure: Measure | None, keys: Collection[str]
    ) -> tuple[Bound, ...]:
        known = AssertionEntry.model_fields.keys()
        if known >= set(keys) and not {*ABSOLUTE, *RELATIVE, "than"} & set(keys):
            self._noting.add(at, "has no bound", f"write one of {', '.join((*ABSOLUTE, *RELATIVE))}")
        found = [] if measure is None else self._absolute(entry, at, measure)
        found += self._relative(entry, at, measure, keys)
        self._crossed(found, at)
        return tuple(found)

    def _absolute(self, entry: AssertionEntry, at: Path, measure: Measure) -> list[Bound]:
        found = []
        for word in ABSOLUTE:
            value = getattr(entry, word)
            if value is None:
                continue
            try:
                found.append(Bound(word, measure.kind.read(value)))
            except ValueError as error:
                for fault in error.context["faults"]:  # type: ignore[attr-defined]  # made by refuse
                    told = f"{fault.hint}; {measure.name} is {measure.kind.form}" if fault.hint else measure.kind.form
                    self._noting.add((*at, word), fault.message, told)
        return found

    def _relative(self, entry: AssertionEntry, at: Path, measure: Measure | None, keys: Collection[str]) -> list[Bound]:
        words = [word for word in RELATIVE if getattr(entry, word) is not None]
        than = None if entry.than is None else self._local(entry.than)
        found: list[Bound] = []
        for word in words:
            if than is None:
                self._noting.add((*at, word), "does not say than which policy", "write `than: fifo` beside it")
            elif measure is not None and not measure.better:
                self._noting.add((*at, word), f"{measure.name} is neither better nor worse", "give `below` or `above`")
            else:
                found.append(Bound(word, getattr(entry, word), than))
        if than is not None:
            self._noting.at((*at, "than"), lambda: load(than))
            if not set(RELATIVE) & set(keys):
                forms = " or ".join(f"`{word}: 10%`" for word in RELATIVE)
                self._noting.add((*at, "than"), "does not say how they compare", f"write {forms} beside it")
        return found

    def _crossed(self, bounds: list[Bound], at: Path) -> None:
        """Bounds that nothing can meet."""
        highs = [bound for bound in bounds if bound.word in {"below", "at_most"}]
        lows = [bound for bound in bounds if bound.word in {"above", "at_least"}]
        for high in highs:
            for low in lows:
                open_end = high.word == "below" or low.word == "above"
                if low.number > high.number or (open_end and low.number == high.number):
                    self._noting.add(
                        (*at, low.word),
                        f"nothing is both {_worded(low.word)} this and {_worded(high.word)} the other",
                        "swap them",
                    )


def _one_of(what: str, name: str, known: list[str], most: int = 10) -> str:
    near = get_close_matches(name, known, n=1)
    listed = ", ".join(known[:most]) + (f" and {len(known) - most:,} more" if len(known) > most else "")
    return (f"did you mean {near[0]}? " if near else "") + (
        f"its {what} are {listed}" if listed else f"it names no {what}"
    )


def _worded(word: str) -> str:
    return word.replace("_", " ")


def _in_words(measure: Measure, bounds: tuple[Bound, ...], selection: Selection, window: Window | None) -> str:
    """What an assertion says, where it has no name."""
    parts = []
    for bound in bounds:
        how, _, worse = bound.word.rpartition("_")
        if bound.than:
            parts.append(f"{_worded(how)} {100 * bound.number:g}% {worse} than {bound.than}")
        else:
            parts.append(f"{_worded(bound.word)} {measure.kind.text(bound.number)}")
    about = ", ".join(filter(None, (str(selection), f"window {window.text}" if window is not None else "")))
    return f"{measure.name}{f' of {about}' if about else ''} {' and '.join(parts)}"
