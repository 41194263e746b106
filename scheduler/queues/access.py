"""Who may submit to a queue: what its access list says, or that of the nearest queue above it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ...policies.tree import Tree
from ..access.model import Role
from ..access.permissions import ForbiddenError


class Submitter(NamedTuple):
    """Somebody who submits: name, role, groups."""

    name: str
    role: Role
    groups: tuple[str, ...] = ()


def may_submit(tree: Tree, queue: str, who: Submitter) -> bool:
    """Whether somebody may submit to a queue, which there is. Admins always may: they write the list."""
    listed = tree.submitters(queue)
    return listed is None or who.role is Role.ADMIN or any(_meant(word, who) for word in listed[1])


def check_submit(tree: Tree, queues: Iterable[str], who: Submitter) -> None:
    """That somebody may submit to queues, all of which there are.

    Raises:
        ForbiddenError: to one of them not; the message names who may.
    """
    for queue in dict.fromkeys(queues):
        if may_submit(tree, queue, who):
            continue
        listed = tree.submitters(queue)
        assert listed is not None, "without a list everybody may"
        source, words = listed
        by = "" if source == queue else f", as queue {source} above it says"
        named = ", ".join(_in_words(word) for word in words)
        raise ForbiddenError(
            f"{who.name} may not submit to queue {queue}: {f'{named} and admins' if named else 'admins alone'} may{by}",
            hint=_others(tree, who) or "ask an admin: `access:` of the queue file says who may",
        )


def _others(tree: Tree, who: Submitter) -> str:
    open_ones = [node.name for node in tree.leaves() if may_submit(tree, node.name, who)]
    return f"you may submit to {', '.join(open_ones[:10])}" if open_ones else ""


def _meant(word: str, who: Submitter) -> bool:
    kind, colon, name = word.partition(":")
    if not colon:
        return word == who.name
    return name in who.groups if kind == "group" else who.role.covers(Role(name))


def _in_words(word: str) -> str:
    kind, colon, name = word.partition(":")
    return f"{kind} {name}" if colon else word
