"""YAML that remembers where each value stands, and refuses what a configuration file never needs.

It differs from `yaml.safe_load` where that surprises people or costs too much:
- plain words mean what YAML 1.2 says: `on`, `yes` and `no` are text, `1:30:00` and `2026-01-02` are text, and a number
  with leading zeros is text, not octal;
- a key given twice is a problem, not an overwrite; tags are refused;
- nesting is bounded while it is read, and an alias counts for all it stands for, so that a file of a few hundred bytes
  cannot ask for gigabytes. Nothing is expanded before it is counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from .errors import Problem
from .yaml_faults import MAX_PROBLEMS, key_path, stop, syntax_error, too_many

MAX_DEPTH = 30
MAX_VALUES = 20_000
"""Values in one document, each alias counted for all that it stands for."""
MAX_FILE_VALUES = 250_000
"""The same for all documents of a file."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,39})")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,9})?")
_OCTAL_LOOK = re.compile(r"[-+]?0[0-9]+")
_CONSTANTS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf"), math.inf),
    "-.inf": -math.inf,
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_STANDARD_TAGS = {None, "!", *(f"tag:yaml.org,2002:{name}" for name in ("str", "map", "seq", "set"))}

Scalar = str | int | float | bool | None


@dataclass(slots=True, eq=False)
class Node:
    """A value with its place. Exactly one of `scalar`, `items` and `pairs` is meant, by `kind`.

    Attributes:
        kind: scalar, list or map.
        line, column: where it begins, from 1.
        start, end: its place in the text, in characters; a document includes the comments before it.
        text, scalar: as written, and what YAML takes it for.
        items: values of a list.
        pairs: key -> (node of the key, node of the value), merged keys included.
        size: values in it and below, aliases counted in full; height: levels below it.
    """

    kind: str
    line: int
    column: int
    start: int = 0
    end: int = 0
    text: str = ""
    scalar: Scalar = None
    items: list[Node] = field(default_factory=list)
    pairs: dict[str, tuple[Node, Node]] = field(default_factory=dict)
    size: int = 1
    height: int = 0

    def value(self, as_text: Collection[str] = ()) -> object:
        """Plain Python: dict, list, str, int, float, bool, None.

        Below the keys in `as_text` a scalar stays as it is written: `1.10`, `true`, `007`.
        """
        if self.kind == "scalar":
            return self.scalar
        if self.kind == "list":
            return [item.value() for item in self.items]
        return {key: node.as_written() if key in as_text else node.value() for key, (_, node) in self.pairs.items()}

    def as_written(self) -> object:
        """As `value`, each scalar in the text of the file unless it is empty or null."""
        if self.kind == "scalar":
            return None if self.scalar is None else self.text
        if self.kind == "list":
            return [item.as_written() for item in self.items]
        return {key: node.as_written() for key, (_, node) in self.pairs.items()}

    def find(self, path: tuple[str | int, ...], *, key: bool = False) -> Node:
        """The node at `path`, or the deepest one on the way to it; with `key`, the node of its last key."""
        node = found = self
        for step in path:
            if node.kind == "map" and isinstance(step, str) and step in node.pairs:
                name, node = node.pairs[step]
                found = name if key else node
            elif node.kind == "list" and isinstance(step, int) and step < len(node.items):
                found = node = node.items[step]
            else:
                break
        return found


def resolve(text: str) -> Scalar:
    """What a plain (unquoted) word means, by YAML 1.2's core rules; huge and octal-looking numbers stay text."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and not _OCTAL_LOOK.fullmatch(text) and not text.lstrip("+-").isdigit():
        return float(text)
    return text


def documents(text: str, file: str, problems: list[Problem], *, line: int = 0, column: int = 0) -> Iterator[Node]:
    """The documents of `text`, one after the other. `line` and `column` shift the places of a text inside a text.

    Faults that leave the rest readable (a key given twice, a tag) are added to `problems`.

    Raises:
        YamlError: the text is no YAML, is nested too deep, or expands to too much.
    """
    composer = _Composer(file, problems, line, column)
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if (node := composer.take(event)) is not None:
                yield node
    except yaml.MarkedYAMLError as error:
        raise syntax_error(error, text, file, line, column) from None


def _mark(mark: Any) -> Any:  # noqa: ANN401 - the C parser's marks are no subclass of the Python ones
    """A mark of an event, which the parser always sets, though its type says that it may be missing."""
    return mark


class _Composer:
    """Builds nodes from parser events with a stack of its own, so that depth is bounded before anything recurses."""

    def __init__(self, file: str, problems: list[Problem], line: int, column: int) -> None:
        self.file = file
        self.problems = problems
        self.line = line
        self.column = column
        self.stack: list[tuple[Node, str | None]] = []
        self.anchors: dict[str, Node | None] = {}
        self.values = 0  # of this document
        self.total = 0  # of those before it
        self.begin = 0

    def take(self, event: yaml.Event) -> Node | None:
        """Take one event in; the finished document when this one ends it."""
        done: Node | None = None
        if isinstance(event, yaml.ScalarEvent):
            done = self._scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            done = self._alias(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            done = self._close(_mark(event.end_mark).index)
        elif isinstance(event, yaml.DocumentStartEvent):
            self.anchors = {}
            self.begin = _mark(event.start_mark).index if self.total else 0
            self.values = 0
        if done is None:
            return None
        if self.stack:
            self.stack[-1][0].items.append(done)
            return None
        self.total += self.values
        done.start = self.begin
        return done

    def _scalar(self, event: yaml.ScalarEvent) -> Node:
        line, column = self._at(event)
        self._count(1, line, column)
        self._check_tag(event)
        plain = event.implicit[0]
        start, end = _mark(event.start_mark).index, _mark(event.end_mark).index
        scalar = resolve(event.value) if plain else event.value
        node = Node("scalar", line, column, start, end, event.value, scalar)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def _alias(self, event: yaml.AliasEvent) -> Node:
        line, column = self._at(event)
        name = event.anchor
        node = self.anchors.get(name or "")
        if node is None:
            inside = name in self.anchors
            what = f"`*{name}` stands inside what it names" if inside else f"`*{name}` names nothing"
            hint = "" if inside else f"put `&{name}` before it, or quote the text"
            raise stop(self.file, line, column, what, hint)
        self._count(node.size, line, column)
        self._check_depth(len(self.stack) + node.height, line, column)
        return node

    def _open(self, event: yaml.CollectionStartEvent) -> None:
        line, column = self._at(event)
        self._count(1, line, column)
        self._check_tag(event)
        self._check_depth(len(self.stack) + 1, line, column)
        if event.anchor:
            self.anchors[event.anchor] = None
        kind = "map" if isinstance(event, yaml.MappingStartEvent) else "list"
        self.stack.append((Node(kind, line, column, _mark(event.start_mark).index), event.anchor))

    def _close(self, end: int) -> Node:
        node, anchor = self.stack.pop()
        node.end = end
        # A list's items are its values; a mapping's were collected as key, value, key, value.
        for item in node.items:
            node.size += item.size
            node.height = max(node.height, item.height)
        node.height += 1
        if node.kind == "map":
            self._pair(node)
        if anchor:
            self.anchors[anchor] = node
        return node

    def _pair(self, node: Node) -> None:
        merged: list[Node] = []
        for name, value in zip(node.items[::2], node.items[1::2], strict=True):
            if name.kind != "scalar":
                self._report(name, "a key must be plain text", "quote it if it begins with `{` or `[`")
            elif name.scalar == name.text == "<<":
                merged += value.items if value.kind == "list" else [value]
            elif name.text in node.pairs:
                first = node.pairs[name.text][0].line
                self._report(name, f"is given twice; the first is in line {first}", "keep one of them", key=name.text)
            else:
                node.pairs[name.text] = (name, value)
        node.items = []
        for base in merged:
            if base.kind != "map":
                self._report(base, "`<<` merges mappings only", "name a mapping by its `*anchor`")
            for key, pair in base.pairs.items():
                node.pairs.setdefault(key, pair)

    def _path(self) -> tuple[str | int, ...]:
        """Where the reader stands: the key or index that is being filled, outermost first."""
        path: list[str | int] = []
        for node, _ in self.stack:
            if node.kind == "list":
                path.append(len(node.items))
            elif len(node.items) % 2:
                path.append(node.items[-1].text)
        return tuple(path)

    def _at(self, event: yaml.Event) -> tuple[int, int]:
        mark = _mark(event.start_mark)
        return mark.line + 1 + self.line, mark.column + 1 + self.column

    def _check_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        if event.tag not in _STANDARD_TAGS:
            tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
            line, column = self._at(event)
            message = f"the tag `{tag}` is not supported"
            self._add(Problem(self.file, line, column, key_path(self._path()), message, "leave it out"))

    def _check_depth(self, depth: int, line: int, column: int) -> None:
        if depth > MAX_DEPTH:
            raise stop(self.file, line, column, f"is nested more than {MAX_DEPTH} levels deep")

    def _count(self, size: int, line: int, column: int) -> None:
        self.values += size
        if self.values > MAX_VALUES:
            message = f"the document holds more than {MAX_VALUES:,} values"
        elif self.total + self.values > MAX_FILE_VALUES:
            message = f"the file holds more than {MAX_FILE_VALUES:,} values"
        else:
            return
        raise stop(self.file, line, column, message, "each `*alias` counts for all that it stands for")

    def _report(self, node: Node, message: str, hint: str, *, key: str = "") -> None:
        path = key_path((*self._path(), key) if key else self._path())
        self._add(Problem(self.file, node.line, node.column, path, message, hint))

    def _add(self, problem: Problem) -> None:
        self.problems.append(problem)
        if len(self.problems) >= MAX_PROBLEMS:
            raise too_many(self.file, problem.line, problem.column)
