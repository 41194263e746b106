"""The nested parts of a job file: placement and checkpoint; `retry` is in retries.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from ..job import GRACE, TopologyWish
from .fields import Duration, FilledText, LabelKey, Part, Signal, choice, refuse

MAX_GRACE = 86_400.0
"""A day. A job that is asked to leave and stays longer holds its GPUs against everyone."""

Level = LabelKey | None
"""A level of the topology: a node label, or `node`."""


def _grace(value: float) -> float:
    if value > MAX_GRACE:
        raise refuse("is longer than a day", "the longest grace is 24h")
    return value


class Topology(Part):
    """Where in the cluster's topology the job's pieces lie: one wish, by a node label, or `node` for one machine."""

    required: Level = Field(
        default=None,
        description="All pieces below one domain of this level (nodes with one value of the label), or the job waits.",
        examples=["rack"],
    )
    preferred: Level = Field(
        default=None,
        description="All pieces below one domain of this level if that fits now, else in the smallest wider part.",
        examples=["rack"],
    )
    balanced: Level = Field(
        default=None,
        description="The pieces spread over the domains of this level, as evenly as what is free allows.",
        examples=["rack"],
    )

    @classmethod
    def _prepare(cls, data: Mapping[str, object]) -> dict[str, object]:
        given = super()._prepare(data)
        modes = [mode for mode in ("required", "preferred", "balanced") if mode in given]
        if len(modes) > 1:
            raise refuse(f"has {' and '.join(modes)}, which are one wish each", "keep one of them")
        return given

    @classmethod
    def _form(cls) -> str:
        return "write `topology: {required: rack}`, or preferred or balanced"

    def wish(self) -> TopologyWish | None:
        """The same for placement; None = none."""
        if self.required is not None:
            return TopologyWish("required", self.required)
        if self.preferred is not None:
            return TopologyWish("preferred", self.preferred)
        return None if self.balanced is None else TopologyWish("balanced", self.balanced)


class Placement(Part):
    """How the job's pieces may be laid out."""

    nodes: Annotated[Literal["any", "distinct"], choice("any", "distinct")] = Field(
        default="any",
        description="`any`: pieces of the job may share a machine; `distinct`: each has a machine of its own.",
        examples=["any", "distinct"],
    )
    topology: Topology = Field(
        default=Topology(),
        description=(
            "Whether the pieces lie close together or apart: one of `required`, `preferred` and `balanced` with a node"
            " label such as rack, or `node` for one machine. Left out: as the policy places them."
        ),
        examples=[{"required": "rack"}, {"preferred": "rack"}, {"balanced": "rack"}],
    )

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a topology where there is none: stored jobs of earlier versions stay as they are."""
        fields: dict[str, Any] = handler(self)
        wish = {mode: level for mode, level in fields.pop("topology").items() if level is not None}
        return {**fields, "topology": wish} if wish else fields


Grace = Annotated[Duration, AfterValidator(_grace)]
"""Seconds between the signal that asks a job to leave and the end of its processes."""


class Checkpoint(Part):
    """Where the job saves its state, and how it is asked to do so before it is stopped."""

    dir: FilledText | None = Field(
        default=None,
        description="Folder that outlives an attempt, given to the job as GPUSCHED_CHECKPOINT_DIR.",
        examples=["/data/checkpoints/llama"],
    )
    grace: Grace | None = Field(
        default=None,
        description="Time from the signal to the end of every process when it is preempted, cancelled or over time."
        " Not given: the grace of its queue, or 60 s.",
        examples=["60s", "5m"],
    )
    signal: Signal = Field(
        default="SIGTERM", description="Signal that asks the job to save and leave.", examples=["SIGTERM", "SIGINT"]
    )

    @property
    def patience(self) -> float:
        """Seconds between the signal and the end of every process."""
        return GRACE if self.grace is None else self.grace

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a grace that nobody gave, which an earlier version would not read."""
        fields: dict[str, Any] = handler(self)
        return fields if self.grace is not None else {key: fields[key] for key in fields if key != "grace"}
