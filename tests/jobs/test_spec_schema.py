"""The JSON schema for editors: in step with the model, explained, and right about its own examples."""

import json
from pathlib import Path

import jsonschema
import pytest

from gpusched.jobs.spec import json_schema, read_job_file, read_jobs
from gpusched.jobs.spec.schema import text
from gpusched.jobs.yaml_marks import documents

JOBS = Path(__file__).parents[2] / "jobs"
SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
PARTS = {"": SCHEMA, **SCHEMA["$defs"]}
KEYS = [(part, key) for part, schema in PARTS.items() for key in schema["properties"]]


def test_the_file_is_what_the_model_says():
    assert (JOBS / "job.schema.json").read_text() == text()


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(("part", "key"), [entry for entry in KEYS if entry[1] != "$schema"])
def test_every_key_is_explained_and_its_examples_are_right(part, key):
    rule = PARTS[part]["properties"][key]
    assert rule["description"].endswith(".")
    assert rule["examples"]
    where = {
        "": None,
        "Resources": "resources",
        "Placement": "placement",
        "Topology": "topology",
        "Checkpoint": "checkpoint",
        "Retry": "retry",
        "RetryFor": "retry",
        "Backoff": "retry",
    }[part]
    for example in rule["examples"]:
        value = {key: example} if where is None else {where: {key: example}}
        if part == "RetryFor":
            value = {"retry": {"limit": 9, "rules": [{"on": "oom", "do": "retry", key: example}]}}
        if part == "Backoff":
            value = {"retry": {"backoff": {"most": "1h", key: example}}}
        value = {"placement": value} if part == "Topology" else value
        document = {"run": "x", **value}
        VALIDATOR.validate(document)
        environ = {"HF_TOKEN": "a", "WANDB_API_KEY": "b"}
        assert len(read_jobs(json.dumps(document), file="f.json", environ=environ)) == 1


def test_unknown_keys_are_refused_at_every_level():
    assert all(part["additionalProperties"] is False for part in PARTS.values())


@pytest.mark.parametrize(
    "document",
    [
        "run: x\nkind: Job\napiVersion: gpusched/v1\n",
        "run: x\nenv:\nlabels:\nresources:\ncheckpoint: {dir: }\n",
        "run: x\nsecrets: [A]\n",
        "run: x\nsecrets: {A: , B: 1}\n",
        "run: x\ntime_limit: 1-12:00:00\nretry: {on: failure}\n",
        "run: x\nresources: {accelerators: {L4:1, T4:1}, cpus: 8+, memory: 64GB+}\n",
        "$schema: job.schema.json\nrun: x\nenv: {A: 1.10, B: true}\nlabels: {rack: 7}\n",
    ],
)
def test_valid_documents_are_valid_for_both(document):
    (root,) = documents(document, "f.yaml", [])
    VALIDATOR.validate(root.value())
    assert len(read_jobs(document, file="f.yaml", environ={"A": "a"})) == 1


@pytest.mark.parametrize("path", sorted((JOBS / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_file_is_valid_for_both(path):
    for root in documents(path.read_text(), str(path), []):
        VALIDATOR.validate(root.value())
    assert read_job_file(path, environ={})
