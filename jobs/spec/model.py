"""JobSpec: what a job file says, resolved: every default filled in, every quantity in seconds, bytes and GPUs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError

from ..errors import GpuschedError, StoreError
from ..job import Shape
from ..units import format_duration, format_size, milli
from .environment import MASK, Env, Secrets
from .fields import (
    STORED,
    ApiVersion,
    ArrayText,
    Duration,
    FilledText,
    Labels,
    Name,
    Notes,
    Part,
    PositiveDuration,
    Text,
    Truth,
    choice,
    whole,
)
from .parts import Checkpoint, Placement
from .resources import Resources
from .retries import Retry, checked
from .writing import to_yaml

KIND_DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "train": {"accelerators": 1, "retry": {"limit": 3, "on": ["lost"]}},
        "inference": {"accelerators": 1, "retry": {"limit": 3, "on": ["lost"]}},
        "service": {"accelerators": 1, "retry": {"limit": 10, "on": ["failure", "lost"]}},
        "command": {"accelerators": 0, "retry": {"limit": 3, "on": ["lost"]}},
    }
)
"""All that `kind` changes: the value of these keys where the file does not give them."""

ALIASES: Mapping[str, str] = MappingProxyType({"time_limit": "max_duration"})
"""Second names of keys."""

MAX_NODES = 100_000

Kind = Literal["train", "inference", "service", "command"]


class JobSpec(Part):
    """One job, resolved. Immutable. Durations are seconds, sizes bytes, GPUs and CPUs numbers for each node.

    A job that asks for no accelerators gets what its kind stands for: one GPU on each node for `train`, `inference` and
    `service`, none for `command`, which is the kind of a job that names none. So a bare `run: ...` holds no GPU, as in
    Slurm, SkyPilot and dstack, and a training job cannot land on a CPU by oversight; `accelerators: 0` says that it
    shall. Beyond its defaults (`KIND_DEFAULTS`) the kind changes nothing.

    `kind: Job`, the type word that belongs to `apiVersion`, is accepted and names no kind: it means `command`. The
    resolved document is written with the job's real kind in that place.

    Built from a file by `read_job_file`, `read_jobs` and `read_script`, from options by `spec_from_options`, from plain
    Python by `spec_from_document`; all of them raise `SpecError` with every problem. The constructor takes the same
    values as a file does and raises pydantic's `ValidationError`.
    """

    api_version: ApiVersion = Field(
        default="gpusched/v1", alias="apiVersion", description="Version of this format.", examples=["gpusched/v1"]
    )
    kind: Annotated[Kind, choice(*KIND_DEFAULTS)] = Field(
        default="command",
        description=(
            "What sort of job it is. Chooses defaults, nothing else: train, inference and service get one GPU on each"
            " node where `resources.accelerators` is left out, and service retries failures. `Job` means command."
        ),
        examples=["train", "command"],
    )
    name: Name = Field(
        default="job",
        description="Name to find the job by; need not be unique. Left out: the name of the file or command.",
        examples=["llama-pretrain"],
    )
    queue: Name = Field(default="default", description="Queue it waits in.", examples=["default", "research"])
    priority: Annotated[int, Field(ge=0, le=100), BeforeValidator(whole(0, 100))] = Field(
        default=50, description="0 to 100, higher first.", examples=[50, 80]
    )
    num_nodes: Annotated[int, Field(ge=1, le=MAX_NODES), BeforeValidator(whole(1, MAX_NODES))] = Field(
        default=1,
        description="Pieces of the job, started all together or not at all; each gets `resources` and runs `run`.",
        examples=[1, 4],
    )
    resources: Resources = Field(
        default=Resources(), description="What each node of the job needs.", examples=[{"accelerators": "H100:8"}]
    )
    labels: Labels = Field(
        default={}, description="Labels that a node must carry to be given to this job.", examples=[{"zone": "a"}]
    )
    placement: Placement = Field(
        default=Placement(), description="How its pieces may be laid out.", examples=[{"nodes": "distinct"}]
    )
    workdir: FilledText | None = Field(
        default=None,
        description="Folder with the code. It is copied at submit, so that the job runs what was submitted.",
        examples=[".", "~/project"],
    )
    setup: Text = Field(
        default="", description="Commands run on each node before `run`.", examples=["pip install -r requirements.txt"]
    )
    run: FilledText = Field(
        description="Commands of the job, run on each of its nodes by bash.", examples=["python train.py --epochs 3"]
    )
    env: Env = Field(
        default={},
        description="Environment variables. Values are taken as written: `1.10` stays 1.10, `no` stays no.",
        examples=[{"LEARNING_RATE": "0.001"}],
    )
    secrets: Secrets = Field(
        default={},
        description=(
            "Variables that are never shown: a list of names taken from the submitter's environment, or a mapping."
        ),
        examples=[["HF_TOKEN"], {"WANDB_API_KEY": None}],
    )
    max_duration: PositiveDuration | None = Field(
        default=None,
        description="Time after which an attempt is stopped. Also called time_limit. Left out: no limit.",
        examples=["2h", "3d", "1-12:00:00"],
    )
    estimated_duration: PositiveDuration | None = Field(
        default=None, description="How long one attempt is expected to run.", examples=["90m"]
    )
    checkpoint: Checkpoint = Field(
        default=Checkpoint(),
        description="Where it saves its state, and how it is asked to.",
        examples=[{"dir": "/data/checkpoints/llama", "grace": "2m"}],
    )
    retry: Annotated[Retry, AfterValidator(checked)] = Field(
        default=Retry(limit=3, on=("lost",)),
        description="When an attempt that went wrong is followed by another. Left out: 3 times after a lost node.",
        examples=[{"limit": 3, "on": ["failure", "lost"]}],
    )
    preemptible: Truth = Field(
        default=False, description="Whether it may be stopped and queued again for a more urgent job.", examples=[True]
    )
    min_runtime: Duration = Field(
        default=0.0, description="Time that an attempt runs before it may be preempted.", examples=["10m"]
    )
    array: ArrayText | None = Field(
        default=None,
        description="Many tasks, by their indices; after % how many at once. Each has its GPUSCHED_ARRAY_INDEX.",
        examples=["0-99", "0-99999%8", "1,4,7", "0-100:10"],
    )
    hold: Truth = Field(default=False, description="Whether it waits until it is released.", examples=[True])
    user: Name | None = Field(default=None, description="Whose job it is. Left out: the submitter.", examples=["ada"])
    annotations: Notes = Field(
        default={}, description="Notes for people and tools; they change nothing.", examples=[{"ticket": "ML-42"}]
    )

    _source: str = PrivateAttr(default="")
    _stored: str = PrivateAttr(default="")

    @property
    def source(self) -> str:
        """The text that the user submitted, the values of secrets masked; empty when it is not known."""
        return self._source

    def with_source(self, text: str) -> Self:
        """The same job with `source`, in which secrets are masked already."""
        spec = self.model_copy()
        spec._source = text  # noqa: SLF001 - a fresh copy of ourselves
        return spec

    def __eq__(self, other: object) -> bool:
        """Equal in every key. Where it was read from does not count."""
        return isinstance(other, JobSpec) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(self.to_store())

    @classmethod
    def _prepare(cls, data: Mapping[str, object]) -> dict[str, object]:
        given = super()._prepare(data)
        given.pop("$schema", None)
        for alias, name in ALIASES.items():
            if alias in given and name not in given:
                given[name] = given.pop(alias)
        if given.get("kind") == "Job":
            given["kind"] = "command"
        kind = given.get("kind", "command")
        defaults = KIND_DEFAULTS.get(kind if isinstance(kind, str) else "", {})
        given.setdefault("retry", defaults.get("retry", {}))
        asked = given.get("resources", {})
        if defaults and isinstance(asked, Mapping) and asked.get("accelerators") is None:
            given["resources"] = {**asked, "accelerators": defaults["accelerators"]}
        return given

    def shape(self) -> Shape:
        """What placement may know of it."""
        need = self.resources
        gpus = need.accelerators.count
        shared = 0 < gpus < 1
        return Shape(
            num_nodes=self.num_nodes,
            gpus=0 if shared else int(gpus),
            gpu_milli=_thousandths(gpus) if shared else 0,
            gpu_types=need.accelerators.types,
            cpu_milli=_thousandths(need.cpus),
            memory=need.memory,
            labels=tuple(sorted(self.labels.items())),
            distinct=self.placement.nodes == "distinct",
            topology=self.placement.topology.wish(),
        )

    def secret_values(self) -> dict[str, str]:
        """The secrets in clear: for the launcher, and for the store to keep apart from the rest.

        Raises:
            GpuschedError: a value is not at hand, because `from_store` was not given it.
        """
        if missing := [name for name, value in self.secrets.items() if value is None]:
            raise GpuschedError(f"no value is known for secret {', '.join(missing)}", hint="submit the job again")
        return {name: value.get_secret_value() for name, value in self.secrets.items() if value is not None}

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's; a changed copy is stored in a form of its own."""
        copy = super().model_copy(update=update, deep=deep)
        if update:
            copy._stored = ""  # noqa: SLF001 - a fresh copy of ourselves
        return copy

    def to_document(self) -> dict[str, object]:
        """The resolved job as plain data, in a file's notation; secrets are masked, keys without a value left out."""
        need, save = self.resources, self.checkpoint
        resources: dict[str, object] = {"accelerators": need.accelerators.to_document(), "cpus": _number(need.cpus)}
        if need.memory:
            resources["memory"] = format_size(need.memory)
        placement: dict[str, object] = {"nodes": self.placement.nodes}
        if (wish := self.placement.topology.wish()) is not None:
            placement["topology"] = {wish.mode: wish.level}
        checkpoint: dict[str, object] = {"dir": save.dir} if save.dir else {}
        if save.grace is not None:
            checkpoint["grace"] = format_duration(save.grace)
        document: dict[str, object | None] = {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "name": self.name,
            "user": self.user,
            "queue": self.queue,
            "priority": self.priority,
            "num_nodes": self.num_nodes,
            "resources": resources,
            "labels": dict(self.labels) or None,
            "placement": placement,
            "max_duration": self.max_duration and format_duration(self.max_duration),
            "estimated_duration": self.estimated_duration and format_duration(self.estimated_duration),
            "checkpoint": {**checkpoint, "signal": save.signal},
            "retry": self.retry.to_document(),
            "preemptible": self.preemptible,
            "min_runtime": format_duration(self.min_runtime) if self.min_runtime else None,
            "array": self.array,
            "hold": self.hold,
            "annotations": dict(self.annotations) or None,
            "env": dict(self.env) or None,
            "secrets": dict.fromkeys(self.secrets, MASK) or None,
            "workdir": self.workdir,
            "setup": self.setup or None,
            "run": self.run,
        }
        return {key: value for key, value in document.items() if value is not None}

    def to_yaml(self) -> str:
        """`to_document` as YAML that reads back to the same job, apart from its secrets."""
        return to_yaml(self.to_document())

    def to_store(self) -> str:
        """The form in which it is stored: one line of JSON, sorted keys, seconds and bytes as numbers.

        Of secrets it has the names only; `source` lies beside it.

        Equal jobs have equal forms.
        """
        if self._stored:
            return self._stored
        fields = self.model_dump(mode="json", by_alias=True)
        fields["secrets"] = sorted(self.secrets)
        if fields.get("array") is None:
            fields.pop("array", None)  # older versions can read the others
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_store(cls, text: str, secrets: Mapping[str, str] | None = None, *, source: str = "") -> Self:
        """The job that `to_store` wrote, with the values of its secrets and its source if they are at hand.

        Raises:
            StoreError: this program cannot read it.
        """
        try:
            spec = cls.model_validate(_with_known_parts(json.loads(text)), context=STORED)
        except (ValidationError, ValueError, RecursionError) as error:
            raise StoreError(
                f"a stored job cannot be read: {_in_short(error)}", hint="was it written by a newer gpusched?"
            ) from error
        # What was read is what is written again: it need not be made anew for each of ten thousand jobs a second.
        spec._stored = text  # noqa: SLF001 - it was made just now
        if secrets:
            values = {name: SecretStr(secrets[name]) if name in secrets else None for name in spec.secrets}
            spec = spec.model_copy(update={"secrets": values})
        spec._source = source  # noqa: SLF001 - as above
        return spec


def _in_short(error: Exception) -> str:
    """What is wrong with a stored job, key by key, in one line."""
    if not isinstance(error, ValidationError):
        return str(error)
    try:
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
    except UnicodeError:  # pydantic cannot say it of what is no Unicode
        return "a value in it is no text"


_PARTS: Mapping[str, type[Part]] = MappingProxyType(
    {"resources": Resources, "checkpoint": Checkpoint, "retry": Retry, "placement": Placement}
)
_KNOWN: dict[tuple[str, str], Part] = {}


def _with_known_parts(stored: object) -> object:
    """Parts that were read before are not read again: the jobs of a sweep ask for the same resources."""
    if not isinstance(stored, dict):
        return stored
    if len(_KNOWN) > 4096:  # noqa: PLR2004 - a few hundred bytes each
        _KNOWN.clear()
    for name, part in _PARTS.items():
        if name in stored:
            # The text tells 1 from 1.0 and from True, which as keys would be equal.
            key = (name, repr(stored[name]))
            known = _KNOWN.get(key)
            if known is None:
                known = _KNOWN[key] = part.model_validate(stored[name], context=STORED)
            stored[name] = known
    return stored


def _thousandths(number: float) -> int:
    thousandths = milli(number)
    assert thousandths is not None, "fields are checked when they are read"
    return thousandths


def _number(number: float) -> float:
    return int(number) if number == int(number) else number
