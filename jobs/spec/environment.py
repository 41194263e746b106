"""Environment variables and secrets of a job.

A secret is a variable whose value is never shown or stored with the job: it lives in a `SecretStr` and leaves it only
through `JobSpec.secret_values`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, SecretStr, ValidationInfo, WithJsonSchema

from .fields import STORED, Fault, MapForm, map_schema, refuse, refuse_all, scalar_text, shown

MASK = "***"
"""What stands for a secret's value in everything that is printed."""

MAX_VARIABLE = 131_071
"""Bytes of `NAME=value` that Linux takes in one environment variable."""

VARIABLE_PATTERN = r"^(?!GPUSCHED_|CUDA_VISIBLE_DEVICES$)[A-Za-z_][A-Za-z0-9_]*$"


def _variable_fault(name: str) -> Fault | None:
    if name.startswith("GPUSCHED_") or name == "CUDA_VISIBLE_DEVICES":
        return Fault(f"`{name}` is set by gpusched itself", "choose another name", on_key=True)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        return Fault(
            f"`{shown(name)}` is no variable name", "letters, digits and `_`, not beginning with a digit", on_key=True
        )
    return None


def _variable(value: object) -> str:
    if fault := _variable_fault(str(value)):
        raise refuse(fault.message, fault.hint)
    return str(value)


def _value(value: object) -> str:
    text = scalar_text(value)
    if len(text.encode("utf-8", "replace")) > MAX_VARIABLE:
        raise refuse("is longer than 128 KiB, the most that a variable can hold", "put it in a file of the workdir")
    return text


Env = Annotated[
    dict[Annotated[str, BeforeValidator(_variable)], Annotated[str, BeforeValidator(_value)]],
    MapForm,
    map_schema(VARIABLE_PATTERN),
]


def _secrets(value: object, info: ValidationInfo) -> dict[str, SecretStr | None]:
    if isinstance(value, Mapping):
        entries = {str(name): entry for name, entry in value.items()}
        places: dict[str, str | int] = {name: name for name in entries}
    elif isinstance(value, list | tuple):
        if odd := [
            Fault(f"must be a name, not {shown(v)}", at=(i,)) for i, v in enumerate(value) if not isinstance(v, str)
        ]:
            raise refuse_all(odd)
        entries = dict.fromkeys(value)
        places = {name: i for i, name in enumerate(value)}
    else:
        raise refuse(f"must be a list of names or a mapping, not {shown(value)}", "write `secrets: [HF_TOKEN]`")
    if info.context == STORED:
        return dict.fromkeys(entries)
    found: dict[str, SecretStr | None] = {}
    faults = []
    for name, entry in entries.items():
        secret = _secret(name, entry, info)
        if isinstance(secret, Fault):
            faults.append(secret._replace(at=(places[name],)))
        else:
            found[name] = secret
    if faults:
        raise refuse_all(faults)
    return found


def _secret(name: str, entry: object, info: ValidationInfo) -> SecretStr | Fault | None:
    if fault := _variable_fault(name):
        return fault
    if name in info.data.get("env", {}):
        return Fault(f"`{name}` is in `env` too", "keep one of them", on_key=True)
    if entry is not None:
        return _secret_value(name, entry)
    environ = info.context.get("environ") if isinstance(info.context, dict) else None
    if environ is None:
        return None
    if name not in environ:
        return Fault(f"`{name}` is not set in your environment", f"export {name}=... before you submit")
    return _secret_value(name, environ[name])


def _secret_value(name: str, entry: object) -> SecretStr | Fault:
    value = entry.get_secret_value() if isinstance(entry, SecretStr) else entry
    if not isinstance(value, str | int | float):
        return Fault(f"must be text, not {shown(value)}")
    text = scalar_text(value)
    if text == MASK:
        return Fault("is masked, not a value", f"give the value, or list the name: `secrets: [{name}]`")
    if len(text.encode("utf-8", "replace")) > MAX_VARIABLE:
        return Fault("is longer than 128 KiB, the most that a variable can hold")
    return SecretStr(text)


_NAME = {"type": "string", "pattern": VARIABLE_PATTERN}
_SECRET = {"type": ["string", "number", "boolean", "null"], "not": {"const": MASK}}
Secrets = Annotated[
    dict[str, SecretStr | None],
    BeforeValidator(_secrets),
    PlainSerializer(lambda secrets: dict.fromkeys(secrets, MASK), return_type=dict[str, str]),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": _NAME},
                {"type": "object", "propertyNames": _NAME, "additionalProperties": _SECRET},
            ]
        }
    ),
]
