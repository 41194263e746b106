"""The kinds of value that a job file is made of, each with its check, its words when it fails, and its JSON schema.

Every check refuses with `refuse`, so that the reader can say what is wrong, where, and what to write instead. What the
store wrote is taken as it is (`STORED`): durations as seconds, sizes as bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ..arrays import ArrayError, parse_array
from ..units import (
    DURATION_HINT,
    DURATION_PATTERN,
    MAX_BYTES,
    MAX_SECONDS,
    SIZE_HINT,
    SIZE_PATTERN,
    UnitError,
    bare_duration,
    bare_size,
    milli,
    parse_duration,
    parse_size,
)

STORED = "stored"
"""Validation context for what `to_store` wrote: values are already in seconds and bytes."""


class Fault(NamedTuple):
    """One thing wrong with a field's value; `at` leads from the field to the part at fault or to its key."""

    message: str
    hint: str = ""
    at: tuple[str | int, ...] = ()
    on_key: bool = False


def refuse(message: str, hint: str = "") -> PydanticCustomError:
    """The error of a check that found one fault in the value itself."""
    return refuse_all([Fault(message, hint)])


def refuse_all(faults: list[Fault]) -> PydanticCustomError:
    """The error of a check that found several faults, or one inside the value."""
    # Pydantic cannot say what is no Unicode.
    summary = faults[0].message.encode("utf-8", "backslashreplace").decode()
    return PydanticCustomError("gpusched", "{summary}", {"summary": summary, "faults": faults})


def shown(value: object) -> str:
    """What a message calls a value: never more than a few words of it."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple | set):
        return "a list"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."  # noqa: PLR2004 - a line's worth


class Part(BaseModel):
    """Base of the job file's parts: frozen, unknown keys refused, and a key left empty is a key left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, data: object, handler: ModelWrapValidatorHandler[Any], info: ValidationInfo) -> Any:  # noqa: ANN401 - pydantic's own signature
        if isinstance(data, cls):
            return data
        if not isinstance(data, Mapping):
            raise refuse(f"must be a mapping of keys to values, not {shown(data)}", cls._form())
        return handler(data if info.context == STORED else cls._prepare(data))

    @classmethod
    def _prepare(cls, data: Mapping[str, object]) -> dict[str, object]:
        return {key: value for key, value in data.items() if value is not None}

    @classmethod
    def _form(cls) -> str:
        """How the mapping is written, for the hint."""
        return f"its keys are {', '.join(f'`{name}`' for name in cls.model_fields)}"


def _text(value: object) -> str:
    if not isinstance(value, str):
        hint = f'put it in quotes: "{shown(value)}"' if isinstance(value, bool | int | float) else ""
        raise refuse(f"must be text, not {shown(value)}", hint)
    if "\0" in value:
        raise refuse("must not contain a NUL character")
    return value


Text = Annotated[str, BeforeValidator(_text)]


def _filled(value: object) -> str:
    if not (text := _text(value)).strip():
        raise refuse("must not be empty")
    return text


FilledText = Annotated[str, BeforeValidator(_filled), WithJsonSchema({"type": "string", "pattern": r"\S"})]


def _array(value: object) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise refuse(f"must be indices, not {shown(value)}", "write 0-99, or 0-99%8")
    try:
        parse_array(text)
    except ArrayError as error:
        raise refuse(str(error), "write 0-99, 0-99%8 (8 at once), 1,4,7 or 0-100:10") from None
    return text.replace(" ", "")


ArrayText = Annotated[
    str,
    BeforeValidator(_array),
    WithJsonSchema({"type": ["string", "integer"], "pattern": r"^[0-9]+(-[0-9]+(:[0-9]+)?)?(,.*)?(%[1-9][0-9]*)?$"}),
]
"""Indices of tasks, as `arrays.parse_array` reads them."""

NAME_PATTERN = r"^(?![0-9]+$)[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"


def clean_name(text: str) -> str:
    """The nearest valid name to `text`: what a name may not contain becomes `-`."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:128]
    return f"job-{name}"[:128] if name.isdigit() else name or "job"


def _name(value: object) -> str:
    text = _filled(value)
    if text.isdigit():
        raise refuse(f"`{shown(text)}` would be taken for a number", f"write `job-{text[:20]}`")
    if not re.fullmatch(NAME_PATTERN[1:-1], text):
        rule = "letters, digits, `.`, `_` and `-`, at most 128"
        raise refuse(f"`{shown(text)}` is no name: {rule}", f"write `{clean_name(text)}`")
    return text


Name = Annotated[str, BeforeValidator(_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]


def whole(low: int, high: int) -> Callable[[object], int]:
    """The check of a whole number from `low` to `high`."""

    def check(value: object) -> int:
        integral = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not isinstance(value, int | float) or not integral:
            hint = "remove the quotes" if isinstance(value, str) and value.isdigit() else ""
            raise refuse(f"must be a whole number, not {shown(value)}", hint)
        if not low <= value <= high:
            raise refuse(f"must be from {low} to {high:,}, not {shown(value)}")
        return int(value)

    return check


def _truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    hint = "write true" if word in {"yes", "on", "1", "true"} else "write false" if word in {"no", "off", "0"} else ""
    raise refuse(f"must be true or false, not {shown(value)}", hint)


Truth = Annotated[bool, BeforeValidator(_truth), WithJsonSchema({"type": "boolean"})]


def choice(*words: str) -> BeforeValidator:
    """One of a few words; a near miss is recognised."""

    def check(value: object) -> str:
        if isinstance(value, str) and value in words:
            return value
        near = get_close_matches(str(value).lower(), words, n=1)
        options = ", ".join(words[:-1]) + f" or {words[-1]}" if len(words) > 1 else words[0]
        raise refuse(f"must be {options}, not {shown(value)}", f"did you mean `{near[0]}`?" if near else "")

    return BeforeValidator(check)


def _duration(value: object, info: ValidationInfo) -> float:
    if info.context == STORED and isinstance(value, int | float) and 0 <= value <= MAX_SECONDS:
        return float(value)
    try:
        if isinstance(value, bool) or not isinstance(value, str):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            raise (
                bare_duration(value) if number else UnitError(f"must be a duration, not {shown(value)}", DURATION_HINT)
            )
        return parse_duration(value)
    except UnitError as error:
        raise refuse(error.message, error.hint) from None


def _positive(value: object, info: ValidationInfo) -> float:
    if (seconds := _duration(value, info)) <= 0:
        raise refuse("must be longer than nothing", "leave the key out where there is no limit")
    return seconds


_DURATION_SCHEMA = WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN})
Duration = Annotated[float, BeforeValidator(_duration), _DURATION_SCHEMA]
"""Seconds, zero allowed."""
PositiveDuration = Annotated[float, BeforeValidator(_positive), _DURATION_SCHEMA]
"""Seconds, more than zero."""


def _size(value: object, info: ValidationInfo) -> int:
    if info.context == STORED and isinstance(value, int) and 0 <= value <= MAX_BYTES:
        return value
    try:
        if not isinstance(value, str):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            raise bare_size(value) if number else UnitError(f"must be a size, not {shown(value)}", SIZE_HINT)
        return parse_size(value.strip().removesuffix("+"))
    except UnitError as error:
        raise refuse(error.message, error.hint) from None


Size = Annotated[
    int, BeforeValidator(_size), WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN.replace("$", r"\+?$")})
]
"""Bytes; `64GB+` is read as 64GB."""

MAX_CPUS = 100_000
_CPUS = re.compile(r"(?P<cpus>[0-9]{1,9}(?:\.[0-9]{1,9})?)\+?|(?P<milli>[0-9]{1,9})m")


def _cpus(value: object) -> float:
    number = value
    if isinstance(value, str):
        match = _CPUS.fullmatch(value.strip())
        if match is None:
            raise refuse(f"`{shown(value)}` is no number of CPUs", "write it like 8, 8+, 0.5 or 500m")
        number = float(match["cpus"]) if match["cpus"] else int(match["milli"]) / 1000
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise refuse(f"must be a number of CPUs, not {shown(value)}", "write it like 8, 8+, 0.5 or 500m")
    if not 0 <= number <= MAX_CPUS:
        raise refuse(f"must be from 0 to {MAX_CPUS:,} CPUs, not {shown(value)}")
    if (thousandths := milli(number)) is None:
        raise refuse(f"{shown(value)} CPUs is too fine", "a thousandth of a CPU (1m) is the smallest step")
    return thousandths / 1000


Cpus = Annotated[
    float,
    BeforeValidator(_cpus),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": MAX_CPUS},
                {"type": "string", "pattern": r"^(?:[0-9]{1,9}(?:\.[0-9]{1,9})?\+?|[0-9]{1,9}m)$"},
            ]
        }
    ),
]
"""CPUs, to the thousandth; `8+` is read as 8."""


def _map(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    hint = "write one `NAME: value` a line" if isinstance(value, list | str) else ""
    raise refuse(f"must be a mapping of names to text, not {shown(value)}", hint)


MapForm = BeforeValidator(_map)
"""Put beside `dict[...]`: what is no mapping is refused in our words."""


def map_schema(key_pattern: str, value_pattern: str = "") -> WithJsonSchema:
    """The schema of a mapping to text, where editors see numbers and truth values unquoted."""
    value: dict[str, object] = {"type": ["string", "number", "boolean"]}
    keys = {"propertyNames": {"pattern": key_pattern}} if key_pattern else {}
    values = {**value, "pattern": value_pattern} if value_pattern else value
    return WithJsonSchema({"type": "object", **keys, "additionalProperties": values})


def scalar_text(value: object) -> str:
    """Text; a number or truth value becomes the text that YAML would write for it."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        raise refuse("has no value", 'write "" for an empty text')
    return _text(str(value) if isinstance(value, int | float) else value)


_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
LABEL_KEY_PATTERN = rf"^(?:[A-Za-z0-9.-]{{1,253}}/)?{_LABEL}$"
LABEL_VALUE_PATTERN = rf"^(?:{_LABEL})?$"


def _label_key(value: object) -> str:
    if not re.fullmatch(LABEL_KEY_PATTERN[1:-1], str(value)):
        raise refuse(
            f"`{shown(value)}` is no label key", "letters, digits, `.`, `_`, `-`, such as `zone` or `example.com/rack`"
        )
    return str(value)


def _label_value(value: object) -> str:
    text = scalar_text(value)
    if not re.fullmatch(LABEL_VALUE_PATTERN[1:-1], text):
        raise refuse(f"`{shown(text)}` is no label value", "letters, digits, `.`, `_` and `-`, at most 63")
    return text


LabelKey = Annotated[str, BeforeValidator(_label_key), WithJsonSchema({"type": "string", "pattern": LABEL_KEY_PATTERN})]

Labels = Annotated[
    dict[Annotated[str, BeforeValidator(_label_key)], Annotated[str, BeforeValidator(_label_value)]],
    MapForm,
    map_schema(LABEL_KEY_PATTERN, LABEL_VALUE_PATTERN),
]

Notes = Annotated[dict[str, Annotated[str, BeforeValidator(scalar_text)]], MapForm, map_schema("")]
"""Any names, any text."""

SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


def _signal(value: object) -> str:
    name = str(value)
    name = name if name.startswith("SIG") else f"SIG{name}"
    if name in {"SIGKILL", "SIGSTOP"}:
        raise refuse(f"{name} cannot be caught, so a job could not save anything", "write SIGTERM")
    if not isinstance(value, str) or name not in SIGNALS:
        near = get_close_matches(name.upper().replace("SIGSIG", "SIG"), SIGNALS, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"one of {', '.join(SIGNALS)}"
        raise refuse(f"{shown(value)} is no signal that a job can catch", hint)
    return name


_SIGNAL_PATTERN = f"^(?:SIG)?(?:{'|'.join(name[3:] for name in SIGNALS)})$"
Signal = Annotated[str, BeforeValidator(_signal), WithJsonSchema({"type": "string", "pattern": _SIGNAL_PATTERN})]

ApiVersion = Annotated[Literal["gpusched/v1"], choice("gpusched/v1")]
