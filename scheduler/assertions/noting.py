"""Problems as they are found in a file, each with its place; the reading goes on after them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ...jobs.errors import GpuschedError, Problem, SpecError
from ...jobs.spec.fields import Fault, Part
from ...jobs.spec.problems import Origin, Path

M = TypeVar("M", bound=Part)
T = TypeVar("T")

ELSEWHERE = {
    "policy": "policies",
    "nodes": "cluster",
    "assertions": "assert",
    "asserts": "assert",
    "tests": "assert",
    "expect": "assert",
    "max": "at_most",
    "min": "at_least",
    "maximum": "at_most",
    "minimum": "at_least",
    "less_than": "below",
    "under": "below",
    "over": "above",
    "greater_than": "above",
    "size": "gpus",
    "compared_to": "than",
    "compared_with": "than",
    "baseline": "than",
    "worse_by": "at_most_worse",
    "history": "trace",
}
"""What our keys may be called elsewhere, where no likeness of spelling would tell."""


class Noting:
    """Notes problems. Attributes: origin: the file; problems: what was found so far."""

    def __init__(self, origin: Origin, problems: list[Problem]) -> None:
        self.origin = origin
        self.problems = problems

    def add(self, path: Path, message: str, hint: str = "", *, on_key: bool = False) -> None:
        """A problem at a path; `on_key` points at the key rather than at its value."""
        self.problems.append(self.origin.problem(path, message, hint, on_key=on_key))

    def at(self, path: Path, make: Callable[[], T]) -> T | None:
        """What `make` makes; what goes wrong with it is a problem at `path`."""
        try:
            return make()
        except SpecError as error:
            count = len(error.problems)
            self.add(path, f"has {count} problem{'s' * (count > 1)}, told below")
            self.problems += error.problems
        except GpuschedError as error:
            self.add(path, error.message, error.hint)
        return None

    def mended(self, model: type[M], document: object) -> M | None:
        """What is sound of a part that has problems, to be judged as well; None = nothing is."""
        if not isinstance(document, Mapping):
            return None
        faulty: set[object] = set()
        for _ in range(2):
            try:
                return model.model_validate({key: document[key] for key in document if key not in faulty})
            except ValidationError as error:
                faulty |= {entry["loc"][0] for entry in error.errors(include_url=False) if entry["loc"]}
        return None

    def checked(self, model: type[M], document: object, at: Path) -> M | None:
        """A part of the file; None = it has problems."""
        try:
            return model.model_validate(document)
        except ValidationError as error:
            self.problems += list(_problems_of(error, model, at, self.origin))
            return None


def _problems_of(error: ValidationError, model: type[BaseModel], at: Path, origin: Origin) -> Iterator[Problem]:
    for entry in error.errors(include_url=False, include_input=False):
        path = (*at, *entry["loc"])
        if entry["type"] == "missing":
            yield origin.problem(path, "is required", f"write `{path[-1]}: ...`")
        elif entry["type"] == "extra_forbidden":
            yield origin.problem(path, "unknown key", _key_hint(model, str(path[-1])), on_key=True)
        else:
            faults: list[Fault] = entry.get("ctx", {}).get("faults") or [Fault(entry["msg"])]
            for fault in faults:
                yield origin.problem((*path, *fault.at), fault.message, fault.hint, on_key=fault.on_key)


def _key_hint(model: type[BaseModel], key: str) -> str:
    level = [info.alias or name for name, info in model.model_fields.items()]
    word = key.lower().replace("-", "_")
    near = get_close_matches(word, level, n=1)
    there = ELSEWHERE.get(word)
    meant = word if word in level else there if there in level else near[0] if near else None
    return f"did you mean `{meant}`?" if meant else f"known here: {', '.join(level)}"
