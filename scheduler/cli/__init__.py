"""The command line: one verb a file. Parse, call a verb of the client, print.

Nothing heavy is imported before a verb asks for it, so that `gpusched --help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    from .root import run  # noqa: PLC0415 - whoever imports `cli` for one of its parts does not pay for click

    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))
