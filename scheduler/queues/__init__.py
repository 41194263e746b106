"""Queues as one YAML file: read and checked, compared, written. The values are those of policies/tree.py.

What reads and writes files is loaded when it is called: it takes pydantic, which a replay and a resting control plane
do without.
"""

from __future__ import annotations

from pathlib import Path

from ...policies.tree import Tree


def read_queues(path: str | Path) -> Tree:
    """The queues of a file. At most 1 MiB is read.

    Raises:
        SpecError: the file cannot be read, or anything in it is wrong. Carries every problem, in file order.
    """
    from .reading import read_queues as read  # noqa: PLC0415 - see above

    return read(path)


def parse_queues(text: str | bytes, *, file: str) -> Tree:
    """The queues of a YAML (or JSON) text; `file` is its name for messages.

    Raises:
        SpecError: with every problem, in the order of the file.
    """
    from .reading import parse_queues as parse  # noqa: PLC0415 - see above

    return parse(text, file=file)


def write_queues(tree: Tree) -> str:
    """The queues as YAML. `parse_queues` of it gives an equal tree."""
    from .writing import write_queues as write  # noqa: PLC0415 - see above

    return write(tree)
