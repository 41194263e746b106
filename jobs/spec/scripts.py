"""`#GPUSCHED key: value` lines of a script, as the mapping that a job file would hold."""

from __future__ import annotations

import re

from ..errors import Problem
from ..yaml_marks import Node, documents

SUFFIXES = frozenset({".sh", ".bash", ".slurm", ".sbatch"})
_MARK = "#GPUSCHED"
_MARKED = re.compile(rf"{_MARK}\b")
_DIRECTIVE = re.compile(rf"{_MARK}[ \t]+(?P<key>[A-Za-z_$][\w$./-]*)[ \t]*:(?:[ \t]+(?P<value>.*)|[ \t]*)")


def is_script(suffix: str, data: bytes) -> bool:
    """Whether a file is a script rather than YAML, by its suffix or its first characters."""
    return suffix in SUFFIXES or data.startswith((b"#!", _MARK.encode()))


def directives(script: str, file: str, problems: list[Problem]) -> Node:
    """The directives as one mapping, `run` being the whole script. What is wrong with them is added to `problems`.

    Raises:
        YamlError: a value is no YAML.
    """
    root = Node("map", 1, 1, 0, len(script))
    commands = False
    for number, line in enumerate(script.split("\n"), start=1):
        if not _MARKED.match(line):
            commands = commands or not (line.startswith("#") or not line.strip())
            continue
        match = _DIRECTIVE.fullmatch(line.rstrip("\r"))
        if match is None:
            problems.append(Problem(file, number, 1, "", "is no directive", f"write `{_MARK} key: value`"))
        elif commands:
            hint = "move it above the first command"
            problems.append(Problem(file, number, 1, match["key"], "has no effect after the first command", hint))
        else:
            _add(root, match, number, file, problems)
    _refuse_shown_secrets(root, file, problems)
    run = Node("scalar", 1, 1, 0, len(script), script, script)
    root.pairs["run"] = (run, run)
    return root


def _add(root: Node, match: re.Match[str], number: int, file: str, problems: list[Problem]) -> None:
    """Put one directive where its path says. Below the first dot the path is one key: label keys have dots too."""
    key = Node("scalar", number, match.start("key") + 1, text=match["key"], scalar=match["key"])
    column = match.start("value") if match["value"] else match.end()
    value = Node("scalar", number, column + 1)
    for node in documents(match["value"] or "", file, problems, line=number - 1, column=column):
        value = node

    def refuse(message: str, hint: str = "keep one of them") -> None:
        problems.append(Problem(file, number, key.column, match["key"], message, hint))

    first, dot, rest = match["key"].partition(".")
    if first == "run":
        refuse("the script itself is what runs", "leave it out")
        return
    parent, name = root, first
    if dot:
        _, parent = root.pairs.setdefault(first, (key, Node("map", number, key.column)))
        name = rest
    if parent.kind != "map":
        refuse(f"`{first}` is given as a whole above")
    elif name in parent.pairs:
        refuse(f"is given twice; the first is in line {parent.pairs[name][0].line}")
    else:
        parent.pairs[name] = (key, value)


def _refuse_shown_secrets(root: Node, file: str, problems: list[Problem]) -> None:
    """A script is shown as it is, so a secret's value cannot stand in it."""
    _, secrets = root.pairs.get("secrets", (root, root))
    for name, (_, value) in secrets.pairs.items() if secrets is not root else ():
        if value.kind != "scalar" or value.scalar is not None:
            hint = f"list the name, `{_MARK} secrets: [{name}]`, and set it in your environment"
            message = "a script is shown as it is, so it cannot hold a secret's value"
            problems.append(Problem(file, value.line, value.column, f"secrets.{name}", message, hint))
