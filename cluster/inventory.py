"""The nodes of a simulated cluster, as a user names them: `54x8`, `4x8:H100,2x4:A100`, or a file of nodes.

A file is YAML:

    nodes:
      - {name: big, count: 4, gpus: 8, gpu_type: H100, cpus: 96, memory: 1TB, labels: {rack: a}}
      - {name: small, gpus: 4}

or a CSV, packed or not, with such columns (labels as `rack=a;zone=b`) or those of a published list: Alibaba's openb
nodes and spot nodes, Microsoft Philly's machines. What is not stated of CPUs and memory is never short.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..jobs.errors import Problem, SpecError, TraceError
from ..jobs.traces.source import Source
from ..jobs.traces.table import Table
from ..jobs.traces.values import MAX_CPU_MILLI, CellError, number, whole
from ..jobs.units import MAX_BYTES, UnitError, parse_size
from .backend import Node

if TYPE_CHECKING:
    from ..jobs.yaml_marks import Node as Value

UNSTATED_CPU_MILLI = 10**9
UNSTATED_MEMORY = 1 << 60
"""What a node without a statement has: more than any job asks for."""
MAX_NODES = 200_000
MAX_GPUS_PER_NODE = 1024

_FORM = "give NxG such as 54x8, NxG:TYPE,... such as 4x8:H100,2x4:A100, or a YAML or CSV file of nodes"
_GROUP = re.compile(r"(\d{1,9})\s*[xX]\s*(\d{1,9})(?::([A-Za-z0-9][A-Za-z0-9._-]*))?", re.ASCII)
_MIB = 1 << 20
_COLUMNS = {
    "name": ("name", "sn", "machineId", "node_name", "machine"),
    "gpus": ("gpus", "gpu", "number of GPUs", "gpu_capacity_num", "cap_gpu"),
    "gpu_type": ("gpu_type", "model", "gpu_model"),
    "cpus": ("cpus", "cpu_num", "cap_cpu"),
    "cpu_milli": ("cpu_milli",),
    "memory": ("memory",),
    "memory_mib": ("memory_mib",),
    "labels": ("labels",),
    "count": ("count",),
}
_YAML_KEYS = ("name", "count", "gpus", "gpu_type", "cpus", "memory", "labels")


def read_cluster(text: str) -> list[Node]:
    """The nodes that `text` stands for.

    Args:
        text: `NxG`, `NxG:TYPE,...`, or the path of a YAML (`.yaml`, `.yml`, `.json`) or CSV file.

    Raises:
        TraceError: the text is neither, or a CSV is wrong; names the file, the row and the column.
        SpecError: a YAML is wrong; carries every problem with its line.
    """
    text = text.strip()
    groups = [_GROUP.fullmatch(part.strip()) for part in text.split(",")]
    if all(groups):
        return _of_groups(text, [group.groups() for group in groups if group])
    path = Path(text)
    if not text or not path.exists():
        looks_like_path = "/" in text or path.suffix in (".yaml", ".yml", ".json", ".csv", ".gz")
        raise TraceError(f"{text}: no such file" if looks_like_path else f"{text!r} is no cluster", hint=_FORM)
    if path.suffix in (".yaml", ".yml", ".json"):
        return _of_yaml(text)
    with Source(text) as source:
        return _of_csv(source)


def _of_groups(text: str, groups: list[tuple[str | None, ...]]) -> list[Node]:
    sizes = [(int(count or 0), int(gpus or 0), kind or "") for count, gpus, kind in groups]
    for count, gpus, _ in sizes:
        if count == 0 or gpus > MAX_GPUS_PER_NODE:
            raise TraceError(
                f"{text}: {count}x{gpus} is no cluster", hint=f"1 node or more, at most {MAX_GPUS_PER_NODE} GPUs each"
            )
    if not any(gpus for _, gpus, _ in sizes):
        raise TraceError(f"{text}: has no GPU", hint=_FORM)
    total = sum(count for count, _, _ in sizes)
    if total > MAX_NODES:
        raise TraceError(f"{text}: has {total:,} nodes", hint=f"at most {MAX_NODES:,} are simulated")
    width = len(str(total - 1))
    kinds = [(gpus, kind) for count, gpus, kind in sizes for _ in range(count)]
    return [
        Node(f"node-{i:0{width}}", gpus, kind, UNSTATED_CPU_MILLI, UNSTATED_MEMORY)
        for i, (gpus, kind) in enumerate(kinds)
    ]


class _Inventory:
    """Nodes as they are read, with their names checked and `count` written out."""

    def __init__(self, width: int = 4) -> None:
        self.nodes: list[Node] = []
        self._names: set[str] = set()
        self._width = width

    def add(
        self,
        name: str,
        count: int | None,
        gpus: int,
        *,
        gpu_type: str = "",
        cpu_milli: int | None = None,
        memory: int | None = None,
        labels: dict[str, str] | None = None,
    ) -> None:
        """Add one node, or `count` of them named `name-0` and so on.

        Raises:
            CellError: a name is there twice, or there are too many nodes.
        """
        if len(self.nodes) + (count or 1) > MAX_NODES:
            raise CellError("count", f"makes more than {MAX_NODES:,} nodes", "simulate fewer")
        for index in range(1 if count is None else count):
            full = name or f"node-{len(self.nodes):0{self._width}}"
            if name and count is not None:
                full = f"{name}-{index:0{len(str(count - 1))}}"
            if full in self._names:
                raise CellError("name", f"{full!r} is the name of two nodes", "give each node a name of its own")
            self._names.add(full)
            self.nodes.append(
                Node(
                    full,
                    gpus,
                    gpu_type,
                    UNSTATED_CPU_MILLI if cpu_milli is None else cpu_milli,
                    UNSTATED_MEMORY if memory is None else memory,
                    dict(labels or {}),
                )
            )


def _of_csv(source: Source) -> list[Node]:
    table = Table(source)
    at = {field: table.find(*names) for field, names in _COLUMNS.items()}
    if at["gpus"] < 0:
        raise table.missing(_COLUMNS["gpus"], "the file needs a header line that names a column of GPUs")
    inventory = _Inventory()
    for row in table.rows():
        cell = {field: row[index].strip() for field, index in at.items() if index >= 0 and row[index].strip()}
        try:
            column = {field: table.names[index] for field, index in at.items()}
            _add_row(inventory, cell, column, dict(_labels(cell.get("labels", ""))))
        except CellError as error:
            raise table.fault(error) from error
    return _some(inventory, source.name)


def _add_row(inventory: _Inventory, cell: dict[str, str], column: dict[str, str], labels: dict[str, str]) -> None:
    cpu = _cpus(cell["cpus"], column["cpus"]) if "cpus" in cell else None
    if "cpu_milli" in cell:
        cpu = whole(cell["cpu_milli"], "cpu_milli", MAX_CPU_MILLI)
    memory = _memory(cell["memory"], column["memory"]) if "memory" in cell else None
    if "memory_mib" in cell:
        memory = whole(cell["memory_mib"], "memory_mib", MAX_BYTES // _MIB) * _MIB
    inventory.add(
        cell.get("name", ""),
        whole(cell["count"], "count", MAX_NODES) if "count" in cell else None,
        whole(cell.get("gpus", ""), column["gpus"], MAX_GPUS_PER_NODE),
        gpu_type=cell.get("gpu_type", ""),
        cpu_milli=cpu,
        memory=memory,
        labels=labels,
    )


def _labels(text: str) -> Iterator[tuple[str, str]]:
    for part in text.split(";") if text else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key:
            raise CellError("labels", f"{part!r} is no label", "it reads like rack=a;zone=b")
        yield key, value


def _cpus(text: str, column: str) -> int:
    milli = round(number(text, column) * 1000)
    if not 0 <= milli <= MAX_CPU_MILLI:
        raise CellError(column, f"{text} CPUs is out of range", "give 0 or more, such as 96")
    return milli


def _memory(text: str, column: str) -> int:
    try:
        return parse_size(text)
    except UnitError as error:
        raise CellError(column, error.message, error.hint) from error


def _some(inventory: _Inventory, file: str) -> list[Node]:
    if not inventory.nodes:
        raise TraceError(f"{file}: names no node", hint="give one node or more")
    return inventory.nodes


def _of_yaml(file: str) -> list[Node]:
    # PyYAML takes a while to load, and most clusters are given as NxG.
    from ..jobs.yaml_faults import MAX_BYTES as MAX_YAML  # noqa: PLC0415 - see above
    from ..jobs.yaml_faults import YamlError, decode  # noqa: PLC0415 - see above
    from ..jobs.yaml_marks import documents  # noqa: PLC0415 - see above

    found = _YamlNodes(file)
    try:
        with Path(file).open("rb") as raw:
            text = decode(raw.read(MAX_YAML + 1), file)
        for document in documents(text, file, found.problems):
            found.take(document)
    except YamlError as error:
        found.problems.append(error.problem)
    except OSError as error:
        raise TraceError(f"{file}: cannot be read: {error.strerror or error}") from error
    if found.problems:
        raise SpecError(found.problems)
    return _some(found.inventory, file)


class _YamlNodes:
    """Nodes from YAML documents, and the problems of all of them."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.inventory = _Inventory()

    def take(self, document: Value) -> None:
        """Read the nodes of one document."""
        listed = document.pairs["nodes"][1] if document.kind == "map" and "nodes" in document.pairs else document
        if listed.kind != "list":
            self._wrong(document, "nodes", "is no list of nodes", "it reads like nodes: [{name: a, gpus: 8}]")
            return
        for index, item in enumerate(listed.items):
            self._add(item, f"nodes[{index}]")

    def _add(self, item: Value, path: str) -> None:
        if item.kind != "map":
            self._wrong(item, path, "is no node", "a node is a map such as {name: a, gpus: 8}")
            return
        cell: dict[str, str] = {}
        labels: dict[str, str] = {}
        sound = True
        for key, (mark, value) in item.pairs.items():
            if key not in _YAML_KEYS:
                sound = self._wrong(mark, f"{path}.{key}", "unknown key", f"the keys are {', '.join(_YAML_KEYS)}")
            elif key == "labels" and value.kind == "map" and all(v.kind == "scalar" for _, v in value.pairs.values()):
                labels = {label: word.text for label, (_, word) in value.pairs.items()}
            elif key == "labels" or value.kind != "scalar":
                hint = "it reads like {rack: a}" if key == "labels" else "give one value"
                sound = self._wrong(value, f"{path}.{key}", f"is a {value.kind}", hint)
            elif value.scalar is not None:
                cell[key] = value.text.strip()
        if not sound:
            return
        try:
            _add_row(self.inventory, cell, {key: key for key in _YAML_KEYS}, labels)
        except CellError as error:
            at = item.pairs[error.column][1] if error.column in item.pairs else item
            self._wrong(at, f"{path}.{error.column}", error.message, error.hint)

    def _wrong(self, at: Value, key: str, message: str, hint: str) -> bool:
        self.problems.append(Problem(self.file, at.line, at.column, key, message, hint))
        return False
