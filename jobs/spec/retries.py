"""The `retry` of a job file: what is done when an attempt went wrong, by cause."""

from __future__ import annotations

import re
import signal
import warnings
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
)

from ..causes import LOG, PATTERNS, STARTS, log_patterns
from ..job import RetryRule, Rule
from ..outcome import BACK_OFF
from ..units import format_duration
from .fields import Duration, Fault, Part, PositiveDuration, choice, refuse, refuse_all, shown, whole

MAX_RETRIES = 1000
MAX_RULES = 20
MAX_PATTERN = 200
"""Characters of a pattern of the user's, and below the most of them in a job: each is looked for in every log."""
MAX_PATTERNS = 20
ACTIONS = ("retry", "retry_elsewhere", "requeue", "fail")

_CODE = r"[1-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5]"
_SIGNALS = {one.name for one in signal.Signals}
_WORDS = ("failure", "lost", "exit", "signal", "oom", "gpu_oom", "pattern", "start", "node_lost")
_ON = (
    rf"{'|'.join(_WORDS)}|exit:(?:{_CODE})|signal:(?:SIG)?[A-Z][A-Z0-9]{{1,8}}|start:(?:{'|'.join(STARTS)})"
    rf"|pattern:(?:{'|'.join(PATTERNS)})|{LOG}.{{1,{MAX_PATTERN}}}/"
)
_TOKEN = {"type": "string", "pattern": f"^(?:{_ON})$"}
_FORMS = "failure, lost or exit:N with N from 1 to 255, or another cause of those in docs/retries.md"


def _cause(value: object) -> str:
    if isinstance(value, str) and value.startswith(LOG):
        return _pattern(value)
    if isinstance(value, str) and value.startswith("signal:"):
        name = value.removeprefix("signal:")
        name = name if name.startswith("SIG") else f"SIG{name}"
        if name not in _SIGNALS:
            raise refuse(f"{shown(value)} names no signal", "write it like signal:SIGSEGV")
        return f"signal:{name}"
    if not isinstance(value, str) or not re.fullmatch(_ON, value):
        raise refuse(f"must be {_FORMS}, not {shown(value)}", _meant(value))
    return value


def _meant(value: object) -> str:
    """What was likely meant by a cause that is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"write exit:{value}"
    kind, colon, name = str(value).partition(":")
    if colon and kind in {"pattern", "start"}:
        return f"known: {', '.join(f'{kind}:{one}' for one in (PATTERNS if kind == 'pattern' else STARTS))}"
    if name or kind in _WORDS:
        return ""
    if f"SIG{kind.upper().removeprefix('SIG')}" in _SIGNALS:
        return f"write signal:SIG{kind.upper().removeprefix('SIG')}"
    return f"write pattern:{kind}" if kind in PATTERNS else f"known: {', '.join(_WORDS)}, log:/REGEX/"


def _pattern(value: str) -> str:
    """A pattern of the user's: one that compiles, is short, and matches not everything."""
    body = value[len(LOG) : -1]
    if len(value) <= len(LOG) + 1 or not value.endswith("/") or not body:
        raise refuse(f"{shown(value)} is no pattern", "write it like log:/CUDA error: .* ECC/")
    if len(body) > MAX_PATTERN:
        raise refuse(f"the pattern is {len(body)} characters long; at most {MAX_PATTERN}")
    if not body.isprintable():
        raise refuse("the pattern has a character that no line of a log has", "write \\t for a tab")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's notes on what a later version may take otherwise
            found = re.compile(body)
    except (re.error, RecursionError, OverflowError) as error:
        raise refuse(f"{shown(value)} is no regular expression: {error}", "escape what stands for itself") from None
    if found.search("") is not None:
        raise refuse(f"{shown(value)} matches every line", "name the words of the error")
    return value


def _causes(value: object) -> object:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list | tuple):
        raise refuse(f"must be a list, not {shown(value)}", "write `on: [failure, lost]`")
    return value


Causes = Annotated[
    tuple[Annotated[str, BeforeValidator(_cause)], ...],
    BeforeValidator(_causes),
    WithJsonSchema({"anyOf": [_TOKEN, {"type": "array", "items": _TOKEN}]}),
]


def _not_empty(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise refuse("names no cause", "write `on: exit:3`")
    return value


class Backoff(Part):
    """The pause before another attempt."""

    first: Duration = Field(
        default=BACK_OFF[0], description="Pause before the first retry; doubled each time.", examples=["5s", "1m"]
    )
    most: PositiveDuration = Field(
        default=BACK_OFF[1], description="The most that the pause grows to.", examples=["5m", "1h"]
    )

    @classmethod
    def _form(cls) -> str:
        return "write `backoff: {first: 10s, most: 10m}`"

    def to_document(self) -> dict[str, object]:
        """As a file has it."""
        return {"first": format_duration(self.first), "most": format_duration(self.most)}


def _growing(value: Backoff | None) -> Backoff | None:
    if value is not None and value.first > value.most:
        first, most = format_duration(value.first), format_duration(value.most)
        raise refuse_all([Fault(f"is longer than `most` ({most})", f"write `most: {first}`", at=("first",))])
    return value


Pause = Annotated[Backoff | None, AfterValidator(_growing)]


class RetryFor(Part):
    """What is done about some causes."""

    on: Annotated[Causes, AfterValidator(_not_empty)] = Field(
        description="The causes that it is for; see docs/retries.md.",
        examples=["oom", "exit:3", ["signal:SIGSEGV", "pattern:nccl"], "log:/uncorrectable ECC/"],
    )
    do: Annotated[Literal["retry", "retry_elsewhere", "requeue", "fail"], choice(*ACTIONS)] = Field(
        description=(
            "`retry`: another attempt, which counts; `retry_elsewhere`: the same, not on the nodes that failed;"
            " `requeue`: another attempt that does not count, as long as the job gets on; `fail`: none."
        ),
        examples=["retry", "retry_elsewhere", "requeue", "fail"],
    )
    limit: Annotated[int | None, BeforeValidator(whole(0, MAX_RETRIES))] = Field(
        default=None,
        description=(
            "How often this rule tries again, within the limit of all; of a requeue: how often in a row without"
            " getting on."
        ),
        examples=[1, 5],
    )
    backoff: Pause = Field(
        default=None, description="Pause before its retries. Left out: that of all.", examples=[{"first": "1m"}]
    )

    @classmethod
    def _form(cls) -> str:
        return "write `{on: exit:3, do: fail}`"

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        return {key: value for key, value in fields.items() if value is not None}


class Retry(Part):
    """When an attempt that went wrong is followed by another one."""

    limit: Annotated[int, Field(ge=0, le=MAX_RETRIES), BeforeValidator(whole(0, MAX_RETRIES))] = Field(
        default=3, description="Attempts beyond the first that count; 0 = no retry counts.", examples=[0, 3]
    )
    on: Causes = Field(
        default=("failure", "lost"),
        description=(
            "What is retried where no rule names the cause: `failure` (a rank fails, whatever the cause), `lost` (the"
            " node, or the process that watched the job, went away), `exit:N` (a rank exits with code N), or any other"
            " cause that `rules` may name."
        ),
        examples=[["lost"], ["failure", "lost"], ["exit:137", "lost"]],
    )
    rules: tuple[RetryFor, ...] = Field(
        default=(),
        max_length=MAX_RULES,
        description="What is done by cause. The first rule that names the cause decides.",
        examples=[
            [{"on": "exit:3", "do": "fail"}, {"on": "oom", "do": "retry_elsewhere"}],
            [{"on": "log:/uncorrectable ECC/", "do": "retry_elsewhere", "limit": 2, "backoff": {"first": "1m"}}],
        ],
    )
    backoff: Pause = Field(
        default=None,
        description="Pause before a retry. Left out: 5 s, doubled each time up to 5 minutes.",
        examples=[{"first": "10s", "most": "10m"}],
    )

    @classmethod
    def _prepare(cls, data: Mapping[str, object]) -> dict[str, object]:
        given = super()._prepare(data)
        rules = given.get("rules")
        if rules is not None and not isinstance(rules, list | tuple):
            raise refuse_all(
                [Fault(f"must be a list, not {shown(rules)}", "write `- {on: exit:3, do: fail}`", at=("rules",))]
            )
        if isinstance(rules, list | tuple) and len(rules) > MAX_RULES:
            raise refuse_all([Fault(f"has {len(rules)} rules; at most {MAX_RULES}", at=("rules",))])
        return given

    @classmethod
    def _form(cls) -> str:
        return "write `retry: {limit: 3}`"

    def rule(self) -> RetryRule:
        """The same for `jobs.outcome`."""
        rules = tuple(Rule(one.on, one.do, one.limit, _span(one.backoff)) for one in self.rules)
        return RetryRule(self.limit, self.on, rules, _span(self.backoff))

    def to_document(self) -> dict[str, object]:
        """As a file has it."""
        rules: list[dict[str, object]] = []
        for one in self.rules:
            entry: dict[str, object] = {"on": one.on[0] if len(one.on) == 1 else list(one.on), "do": one.do}
            if one.limit is not None:
                entry["limit"] = one.limit
            rules.append(entry if one.backoff is None else {**entry, "backoff": one.backoff.to_document()})
        document: dict[str, object] = {"limit": self.limit, "on": list(self.on)}
        if rules:
            document["rules"] = rules
        return document if self.backoff is None else {**document, "backoff": self.backoff.to_document()}

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is not there: stored jobs of earlier versions stay as they are."""
        fields: dict[str, Any] = handler(self)
        return {key: value for key, value in fields.items() if value or key in {"limit", "on"}}


def _span(value: Backoff | None) -> tuple[float, float] | None:
    return None if value is None else (value.first, value.most)


def checked(value: Retry) -> Retry:
    """What the parts cannot see alone: limits of rules within the limit of all, and how many patterns there are.

    Raises:
        PydanticCustomError: with every fault.
    """
    faults = [
        Fault(f"is more than the limit of all retries ({value.limit})", "raise `retry.limit`", ("rules", at, "limit"))
        for at, one in enumerate(value.rules)
        if one.limit is not None and one.limit > value.limit and one.do in {"retry", "retry_elsewhere"}
    ]
    patterns = len(log_patterns(value))
    if patterns > MAX_PATTERNS:
        faults.append(Fault(f"has {patterns} patterns; at most {MAX_PATTERNS}", "join some of them with |"))
    if faults:
        raise refuse_all(faults)
    return value
