"""The HTTP API, fuzzed from its own OpenAPI document: no 5xx, every status and answer as documented.

GPUSCHED_FUZZ_EXAMPLES=2000 makes the long run of it.
"""

from __future__ import annotations

import json
import os
import urllib.parse

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from live_kit import spec_text

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis fuzzes the API from its OpenAPI document")

from schemathesis.checks import not_a_server_error  # noqa: E402 - it may not be there
from schemathesis.specs.openapi.checks import (  # noqa: E402 - as above
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

EXAMPLES = int(os.environ.get("GPUSCHED_FUZZ_EXAMPLES", "15"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    from live_kit import Plane  # noqa: PLC0415 - beside the fixture's own

    plane = Plane(tmp_path_factory.mktemp("fuzzed") / "home")
    for run in ("true", "sleep 60"):
        plane.submit(run, name="job")
    plane.submit("true", name="held", flags={"hold": True})
    yield plane
    plane.close()


def short(case) -> None:
    """Streams and waits end at once; a reference is now and then a real one."""
    query = case.query if isinstance(case.query, dict) else {}
    query.pop("follow", None)
    if case.path.endswith("/wait"):
        query["timeout"] = "0"
    case.query = query


def test_every_operation_answers_as_its_document_says(fuzzed):
    document = fuzzed.get("/v1/openapi.json").json
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=fuzzed.server.url)
    headers = {"Authorization": f"Bearer {fuzzed.server.token}"}
    faults: dict[str, str] = {}
    asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy())
        def run(case):
            nonlocal asked
            short(case)
            asked += 1
            case.validate_response(case.call(headers=headers, timeout=30), checks=CHECKS)

        try:
            run()
        except Exception as error:  # noqa: BLE001 - all are told at the end
            faults[operation.label] = str(error)[:1500]
    assert not faults, "\n\n".join(f"{label}: {said}" for label, said in faults.items())
    assert asked >= EXAMPLES * 20
    assert fuzzed.wait(fuzzed.submit("true")["id"])["state"] == "SUCCEEDED"


REFERENCES = [
    "1",
    "3",
    "@",
    "@~1",
    "job",
    "held",
    "0",
    "-1",
    "1e3",
    "01",
    "x" * 300,
    "\x1b[2J",
    "' OR 1=1 --",
    "%",
    "_",
]


@pytest.mark.parametrize("reference", REFERENCES)
def test_whatever_stands_for_a_job_every_verb_answers_well(fuzzed, reference):
    path = f"/v1/jobs/{urllib.parse.quote(reference, safe='')}"
    for reply in (
        *(fuzzed.get(path + rest) for rest in ("", "/events", "/explain", "/logs", "/wait?timeout=0")),
        *(fuzzed.post(f"{path}/{verb}") for verb in ("hold", "release", "requeue")),
    ):
        assert reply.status < 500, reply.body
        if reply.status >= 400:
            assert reply.json["error"]["message"]


def test_a_submission_of_odd_documents_is_answered_well(fuzzed):
    odd = [
        {"jobs": [{"spec": spec_text("true"), "secrets": {"A": "b"}}]},
        {"jobs": [{"spec": spec_text("true"), "snapshot": "../x"}]},
        {"jobs": [{"spec": spec_text("true"), "source": "\ud800\x00"}], "hold": True},
        {"documents": [{"text": "run: a\nname: '\x1b[31m'"}]},
        {"documents": [{"text": "run: a", "file": "\n\r\x1b]0;x\x07"}], "hold": True},
        {"documents": [{"text": "run: [" * 1000}]},
    ]
    for body in odd:
        reply = fuzzed.post("/v1/jobs", json.dumps(body).encode())
        assert reply.status in {201, 400, 409, 422}, (body, reply.body)
