"""What a job wrote, made fit for a terminal: colours stay, all else that would steer the terminal is shown as text.

A job's output is its own; but whoever looks at it on a terminal is not to have the title changed, the clipboard set,
lines above overwritten or answers typed for them. Carriage returns, backspaces and tabs stay: progress bars live of
them, and they reach no further than their line.
"""

from __future__ import annotations

import re

_SGR = re.compile(r"\x1b\[[0-9;:]{0,40}m")
_BEGUN = re.compile(r"\x1b(?:\[[0-9;:]{0,40})?\Z")
_STEERS = re.compile(
    "[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


class TerminalFilter:
    """Cleans a stream piece by piece; a colour that is cut in two by a piece's end stays whole.

    Attributes:
        coloured: whether there was a colour.
    """

    def __init__(self) -> None:
        self._rest = ""
        self.coloured = False

    def clean(self, text: str) -> str:
        """The next piece, harmless."""
        text = self._rest + text
        begun = _BEGUN.search(text)
        self._rest = begun[0] if begun else ""
        text = text[: len(text) - len(self._rest)]
        parts = []
        end = 0
        for colour in _SGR.finditer(text):
            parts += [_plain(text[end : colour.start()]), colour[0]]
            end = colour.end()
            self.coloured = True
        return "".join([*parts, _plain(text[end:])])

    def finish(self) -> str:
        """What was left of the last piece, and the usual colour again if there was another."""
        rest, self._rest = self._rest, ""
        return _plain(rest) + ("\x1b[0m" if self.coloured else "")


def _plain(text: str) -> str:
    return _STEERS.sub(lambda found: found[0].encode("unicode_escape", "backslashreplace").decode("ascii"), text)
