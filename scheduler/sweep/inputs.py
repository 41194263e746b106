"""From what a user names to the values that every process gets: traces as bytes, policies with their code, labels."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...cluster.backend import Node
from ...cluster.profile import Failures, Profile
from ...jobs.errors import TraceError
from ...policies.catalog import load
from ..report.run import cluster_in_words
from .case import Extra, PolicyInput, TraceInput
from .grid import SweepError
from .vary import GENERATED


def trace_inputs(sources: Sequence[str], form: Mapping[str, Any]) -> dict[str, TraceInput]:
    """The traces that a user names, by a label: the file's name, or what was given where two have one name.

    Raises:
        TraceError: a file cannot be read.
        SweepError: one is named twice.
    """
    form_key = tuple(form.items())
    labels = _labels(sources, "TRACE", lambda source: source if source.startswith(GENERATED) else Path(source).name)
    found = {}
    for source, label in zip(sources, labels, strict=True):
        data = b"" if source.startswith(GENERATED) else content(source)
        found[label] = TraceInput(label, source, data, form_key)
    return found


def content(source: str) -> bytes:
    """A file whole, or standard input.

    Raises:
        TraceError: it cannot be read, or is empty.
    """
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except FileNotFoundError as error:
        raise TraceError(f"{source}: no such file", hint="check the path") from error
    except IsADirectoryError as error:
        raise TraceError(f"{source}: is a folder", hint="name one file in it") from error
    except (OSError, ValueError) as error:
        raise TraceError(f"{source}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not data:
        raise TraceError(f"{source}: is empty", hint="give a trace with a header line and at least one job")
    return data


def cluster_inputs(texts: Sequence[str], read: Callable[[str], list[Node]]) -> dict[str, Sequence[Node]]:
    """The clusters that a user names, by a label: the words, or the file's name.

    Raises:
        TraceError, SpecError: as `read` raises them.
        SweepError: one is named twice.
    """
    nodes = [read(text) for text in texts]
    words = [cluster_in_words(those) for those in nodes]
    short = {text: word if text == word else Path(text).name for text, word in zip(texts, words, strict=True)}
    return dict(zip(_labels(texts, "cluster", short.__getitem__), nodes, strict=True))


def policy_inputs(names: Iterable[str]) -> dict[str, PolicyInput]:
    """The policies that a user names, by their own name, or what was given where two have one name.

    Raises:
        NotFoundError: there is no such policy, or it cannot be loaded.
    """
    asked = list(dict.fromkeys(names))
    loaded = [load(name) for name in asked]
    labels = _labels(asked, "--policy", dict(zip(asked, (p.name for p in loaded), strict=True)).__getitem__)
    return {
        label: PolicyInput(name, policy.name, str(policy.version), _code(name))
        for label, name, policy in zip(labels, asked, loaded, strict=True)
    }


def _code(name: str) -> bytes:
    """The source of a policy that is a file's or a module's."""
    source, colon, _ = name.partition("?")[0].rpartition(":")
    if not colon:
        return b""
    if source.endswith(".py"):
        return Path(source).read_bytes()
    spec = importlib.util.find_spec(source)
    return Path(spec.origin).read_bytes() if spec is not None and spec.origin and Path(spec.origin).exists() else b""


def profile_input(name: str, profile: Profile) -> Extra:
    """A profile, known by its numbers: a comment in its file is nothing to run again for."""
    chance = profile.failures != Failures(retries=profile.failures.retries) or profile.overruns.probability > 0
    return Extra(Path(name).name, profile, hashlib.sha256(repr(profile).encode()).hexdigest(), random=chance)


def text_input(name: str, value: Any, text: str | bytes) -> Extra:  # noqa: ANN401 - a window, or queues as text
    """A further input that is known by the text that it was read from."""
    return Extra(name, value, hashlib.sha256(text if isinstance(text, bytes) else text.encode()).hexdigest())


def _labels(given: Sequence[str], what: str, short: Callable[[str], str]) -> list[str]:
    """A name for each: the short one where it is the only one of that name."""
    for text in given:
        if given.count(text) > 1:
            raise SweepError(f"{what} {text!r} is given twice", hint="once is enough")
    shorts = [short(text) for text in given]
    return [name if shorts.count(name) == 1 else text for name, text in zip(shorts, given, strict=True)]
