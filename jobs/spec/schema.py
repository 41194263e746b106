"""The JSON schema of the job file, for editors: made from the model, so that it cannot say anything else.

`jobs/job.schema.json` is this schema as a file. After a change of the model it is written again by

    python -c 'from gpusched.jobs.spec.schema import text; print(text(), end="")' > jobs/job.schema.json
"""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from .model import ALIASES, JobSpec


class _Schema(GenerateJsonSchema):
    """Without titles: they would repeat the key."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401, ARG002 - pydantic's own signature
        return False


def json_schema() -> dict[str, Any]:
    """The schema of one job document.

    What a schema cannot say is left to the model: limits of durations and sizes, the smallest steps of CPUs and GPUs
    and their upper limits inside a text, one count and no repetition among alternatives, `env` and `secrets` apart,
    `max_duration` and `time_limit` not both, one topology wish, secrets that are set in the submitter's environment,
    and the length of a variable.
    """
    schema = JobSpec.model_json_schema(schema_generator=_Schema)
    for part in (schema, *schema["$defs"].values()):
        part.pop("title", None)
        required = part.get("required", [])
        for name, value in part["properties"].items():
            _plain(value)
            if name not in required:
                part["properties"][name] = _or_empty(value)
    properties = schema["properties"]
    kinds = properties["kind"]
    kinds["enum"] = [*kinds["enum"], "Job"]
    for alias, name in ALIASES.items():
        properties[alias] = {**properties[name], "description": f"The same as {name}."}
    properties["$schema"] = {"type": "string", "description": "Where this schema is; for editors only."}
    schema["description"] = "A job for gpusched."
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "gpusched job", **schema}


def _plain(schema: dict[str, Any]) -> None:
    """Leave out defaults: they depend on `kind`, and are in seconds and bytes."""
    schema.pop("default", None)


def _or_empty(schema: dict[str, Any]) -> dict[str, Any]:
    """A key that may be left out may be left empty."""
    notes: dict[str, Any] = {key: schema[key] for key in ("description", "examples") if key in schema}
    rule = {key: value for key, value in schema.items() if key not in notes}
    if "const" in rule:
        rule = {"enum": [rule["const"]]}
    if "enum" in rule:
        return {**notes, "enum": [*rule["enum"], None]}
    if isinstance(rule.get("type"), str):
        return {**notes, **rule, "type": [rule["type"], "null"]}
    if "anyOf" in rule:
        rest = [entry for entry in rule["anyOf"] if entry != {"type": "null"}]
        return {**notes, "anyOf": [*rest, {"type": "null"}]}
    return {**notes, "anyOf": [rule, {"type": "null"}]}


def text() -> str:
    """The schema as the file holds it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
