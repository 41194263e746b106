"""Plain data as YAML for people: keys in the given order, texts of several lines as blocks."""

from __future__ import annotations

import yaml

from ..yaml_marks import resolve

_LINE_BREAKS = "\x85\u2028\u2029"
"""Taken for line ends by some readers; as escapes they stay what they are."""


class _Dumper(yaml.SafeDumper):
    """Quotes what our reader, or a YAML 1.1 reader, would not take for text. Repeats values instead of naming them."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the base class hands it in
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    odd = not isinstance(resolve(text), str) or any(mark in text for mark in _LINE_BREAKS)
    style = '"' if odd else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def to_yaml(document: object) -> str:
    """`document` as YAML, mappings in block style."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
