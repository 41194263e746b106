"""How a trace is to be read: the choices that every reader honours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Gang = Literal["total", "nodes"]
Resources = Literal["gpus", "all"]


@dataclass(frozen=True, slots=True)
class Options:
    """Choices for a reader.

    Attributes:
        gang: `total` lets the placer split a job's GPUs (one node where they fit, else whole nodes and a remainder);
            `nodes` asks for the node count in the trace, where it divides the GPUs evenly.
        resources: `gpus` asks for GPUs and their types alone and skips CPU-only jobs; `all` asks for CPUs and memory
            too, by the trace's node count, and keeps CPU-only jobs.
        columns: our field name -> the file's column name, for the generic reader.
    """

    gang: Gang = "total"
    resources: Resources = "gpus"
    columns: Mapping[str, str] = field(default_factory=dict)
