"""A job written back: to YAML for people, to JSON for the store, and never with its secrets."""

import json
import logging
import pickle

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusched.jobs.errors import GpuschedError, StoreError
from gpusched.jobs.spec import (
    JobSpec,
    json_schema,
    read_job_file,
    read_jobs,
    read_script,
    spec_from_document,
    spec_from_options,
)
from gpusched.jobs.units import format_duration, format_size

HUSH = "hush-9f8e7d6c5b4a"
WITH_SECRETS = f"""\
# the nightly run
name: nightly
run: python train.py
secrets:
  HF_TOKEN: {HUSH}
  OTHER: "{HUSH}"   # quoted
  BLOCK: |
    {HUSH}
  MINE:
env: {{A: b}}
"""


def one(text, **given):
    (spec,) = read_jobs(text, file="f.yaml", environ={"MINE": HUSH}, **given)
    return spec


def test_secrets_are_in_nothing_that_is_shown_stored_or_compared(caplog):
    spec = one(WITH_SECRETS)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").debug("%s %r", spec, spec)
    shown = [
        repr(spec),
        str(spec),
        str(spec.secrets),
        str(dict(spec)),
        str(spec.model_dump()),
        spec.model_dump_json(),
        json.dumps(spec.to_document()),
        spec.to_yaml(),
        spec.to_store(),
        spec.source,
        caplog.text,
    ]
    assert not [text for text in shown if HUSH in text]
    assert all("HF_TOKEN" in text for text in shown)
    assert spec.to_document()["secrets"] == dict.fromkeys(("HF_TOKEN", "OTHER", "BLOCK", "MINE"), "***")


def test_secrets_come_out_where_they_are_asked_for():
    assert one(WITH_SECRETS).secret_values() == {
        "HF_TOKEN": HUSH,
        "OTHER": HUSH,
        "BLOCK": HUSH + "\n",
        "MINE": HUSH,
    }
    assert one("run: x\nsecrets: [MINE]\n").secret_values() == {"MINE": HUSH}


def test_a_failed_check_does_not_show_secrets():
    document = {"run": "x", "priority": "high", "secrets": {"T": HUSH}, "nonsense": 1}
    with pytest.raises(GpuschedError) as caught:
        spec_from_document(document)
    assert HUSH not in str(caught.value)
    with pytest.raises(ValueError, match="priority") as raw:
        JobSpec(**document)
    assert HUSH not in str(raw.value)


def test_the_source_is_what_was_submitted_with_secrets_masked():
    assert one(WITH_SECRETS).source == (
        '# the nightly run\nname: nightly\nrun: python train.py\nsecrets:\n  HF_TOKEN: "***"\n'
        '  OTHER: "***"   # quoted\n  BLOCK: "***"\n  MINE:\nenv: {A: b}\n'
    )


def test_the_source_masks_a_secret_that_is_an_alias_at_its_anchor():
    spec = one(f"annotations: {{é: &s {HUSH}}}\nrun: x\nsecrets: {{T: *s}}\n")
    assert spec.secret_values() == {"T": HUSH}
    assert HUSH not in spec.source


def test_each_document_has_its_own_source():
    first, second = read_jobs("# ä\nrun: a\n---\n# two\nrun: b\n", file="f.yaml")
    assert (first.source, second.source) == ("# ä\nrun: a\n", "---\n# two\nrun: b\n")


def test_the_source_names_the_options_that_came_on_top():
    spec = one("run: x\n", options={"priority": 80, "secrets": {"T": HUSH}}, names={"priority": "--priority"})
    assert spec.source == "run: x\n# --priority: 80\n"
    assert one("run: x", options={"setup": "a\nb"}).source == "run: x\n# setup: a b\n"


def test_a_job_without_a_file_has_its_options_as_source():
    spec = spec_from_options({"run": ["python", "a b.py"], "resources.accelerators": 8, "secrets": {"T": HUSH}})
    assert HUSH not in spec.source
    again = spec_from_document(_yaml(spec.source) | {"secrets": {"T": HUSH}})
    assert again == spec


def _yaml(text):
    import yaml  # noqa: PLC0415 - one use

    return yaml.safe_load(text)


def test_a_script_is_its_own_source():
    text = "#!/bin/sh\n#GPUSCHED priority: 80\necho\n"
    assert read_script(text, file="f.sh").source == text


def test_the_stored_form_has_seconds_bytes_and_names_of_secrets():
    spec = one("run: x\nmax_duration: 2h\nresources: {memory: 64GB, accelerators: A100:0.5}\nsecrets: [MINE]\n")
    stored = json.loads(spec.to_store())
    assert (stored["max_duration"], stored["resources"]["memory"], stored["secrets"]) == (7200, 64 * 10**9, ["MINE"])
    assert stored["resources"]["accelerators"]["count"] == 0.5


def test_a_stored_job_comes_back_with_and_without_its_secrets():
    spec = one(WITH_SECRETS)
    assert JobSpec.from_store(spec.to_store(), spec.secret_values()) == spec
    bare = JobSpec.from_store(spec.to_store(), source=spec.source)
    assert (set(bare.secrets), bare.source) == (set(spec.secrets), spec.source)
    with pytest.raises(GpuschedError, match="no value is known for secret BLOCK, HF_TOKEN"):
        bare.secret_values()
    assert bare.to_store() == spec.to_store()


def test_equal_jobs_have_one_stored_form():
    first = one("run: x\nenv: {A: a, B: b}\nmax_duration: 90m\n")
    second = one("max_duration: 1h30m\nenv: {B: b, A: a}\nrun: x\n")
    assert first == second
    assert first.to_store() == second.to_store()
    assert hash(first) == hash(second)
    assert first != one("run: y\n")


@pytest.mark.parametrize(
    "change",
    [
        {"max_duration": -1},
        {"max_duration": float("nan")},
        {"priority": 101},
        {"num_nodes": 10**12},
        {"resources": {"memory": -1}},
        {"resources": {"memory": 1 << 60}},
        {"resources": {"accelerators": {"count": -8}}},
        {"resources": {"accelerators": {"count": 1.5}}},
        {"resources": {"accelerators": {"count": 1, "types": ["a b"]}}},
        {"checkpoint": {"grace": 1e9}},
        {"from_the_future": 1},
        {"run": None},
    ],
)
def test_a_stored_job_that_breaks_a_rule_is_refused(change):
    stored = json.loads(JobSpec(run="x").to_store())
    with pytest.raises(StoreError, match="a stored job cannot be read"):
        JobSpec.from_store(json.dumps({**stored, **change}))


def test_what_is_no_json_is_no_stored_job():
    with pytest.raises(StoreError, match="a stored job cannot be read"):
        JobSpec.from_store("{")


def test_a_job_survives_the_way_to_another_process():
    spec = one(WITH_SECRETS)
    again = pickle.loads(pickle.dumps(spec))  # noqa: S301 - our own bytes
    assert again == spec
    assert (again.source, again.secret_values()) == (spec.source, spec.secret_values())


def test_the_resolved_job_is_written_for_people():
    spec = one(
        "kind: train\nname: bert\nnum_nodes: 2\n"
        "resources: {accelerators: [h100:8, A100:8], cpus: 500m, memory: 64GB+}\n"
        "env: {A: no, B: 1.10}\nmax_duration: 90m\nrun: |\n  cd x\n  torchrun y\n"
    )
    assert spec.to_yaml() == (
        "apiVersion: gpusched/v1\nkind: train\nname: bert\nqueue: default\npriority: 50\nnum_nodes: 2\n"
        "resources:\n  accelerators:\n  - H100:8\n  - A100:8\n  cpus: 0.5\n  memory: 64GB\n"
        "placement:\n  nodes: any\nmax_duration: 1h30m\ncheckpoint:\n  signal: SIGTERM\n"
        "retry:\n  limit: 3\n  'on':\n  - lost\npreemptible: false\nhold: false\n"
        "env:\n  A: 'no'\n  B: \"1.10\"\nrun: |\n  cd x\n  torchrun y\n"
    )


# Any job at all --------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
FILLED = TEXT.filter(lambda text: text.strip())
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,20}", fullmatch=True)
VARIABLES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,10}", fullmatch=True).filter(
    lambda name: name[:4] not in {"GPUS", "CUDA"}
)
LABELS = st.from_regex(r"([A-Za-z0-9.-]{1,9}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,5}[A-Za-z0-9])?", fullmatch=True)
DURATIONS = st.integers(min_value=1, max_value=10**9).map(lambda ms: format_duration(ms / 1000))
SIZES = st.integers(min_value=0, max_value=1 << 50).map(format_size)
COUNTS = st.integers(min_value=0, max_value=1024) | st.integers(min_value=1, max_value=999).map(
    lambda milli: milli / 1000
)
TYPES = st.from_regex(r"X[A-Za-z0-9._-]{0,8}", fullmatch=True)
ACCELERATORS = (
    COUNTS
    | st.builds("{}:{}".format, TYPES, COUNTS)
    | st.builds(
        lambda types, n: [f"{t}:{n}" for t in types], st.lists(TYPES, min_size=1, max_size=3, unique=True), COUNTS
    )
    | st.builds(dict.fromkeys, st.lists(TYPES, min_size=1, max_size=3, unique=True), COUNTS)
)
DOCUMENTS = st.fixed_dictionaries(
    {"run": FILLED},
    optional={
        "kind": st.sampled_from(["train", "inference", "service", "command"]),
        "name": NAMES,
        "queue": NAMES,
        "user": NAMES,
        "priority": st.integers(min_value=0, max_value=100),
        "num_nodes": st.integers(min_value=1, max_value=100_000),
        "resources": st.fixed_dictionaries(
            {},
            optional={
                "accelerators": ACCELERATORS,
                "cpus": st.integers(min_value=0, max_value=10**6).map(lambda milli: milli / 1000),
                "memory": SIZES,
            },
        ),
        "labels": st.dictionaries(LABELS, st.sampled_from(["", "a", "b-1", "1.5", "true"]), max_size=3),
        "placement": st.fixed_dictionaries(
            {},
            optional={
                "nodes": st.sampled_from(["any", "distinct"]),
                "topology": st.fixed_dictionaries({}, optional={"required": LABELS})
                | st.fixed_dictionaries({"preferred": LABELS})
                | st.fixed_dictionaries({"balanced": LABELS}),
            },
        ),
        "workdir": FILLED,
        "setup": TEXT,
        "env": st.dictionaries(
            VARIABLES,
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
            max_size=4,
        ),
        "annotations": st.dictionaries(
            NAMES, st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20), max_size=3
        ),
        "max_duration": DURATIONS,
        "estimated_duration": DURATIONS,
        "min_runtime": DURATIONS,
        "checkpoint": st.fixed_dictionaries(
            {},
            optional={
                "dir": FILLED,
                "grace": st.sampled_from(["0s", "60s", "24h"]),
                "signal": st.sampled_from(["SIGTERM", "INT"]),
            },
        ),
        "retry": st.fixed_dictionaries(
            {},
            optional={
                "limit": st.integers(min_value=0, max_value=1000),
                "on": st.lists(st.sampled_from(["failure", "lost", "exit:3", "gpu_oom"])),
                "rules": st.lists(
                    st.fixed_dictionaries(
                        {
                            "on": st.sampled_from(["oom", "log:/a b+/", "signal:KILL", ["exit:3", "pattern:nccl"]]),
                            "do": st.sampled_from(["retry", "retry_elsewhere", "requeue", "fail"]),
                        },
                        optional={"limit": st.just(0), "backoff": st.just({"first": "7s"})},
                    ),
                    max_size=3,
                ),
                "backoff": st.sampled_from([{}, {"first": "0s"}, {"first": "1s", "most": "90s"}]),
            },
        ),
        "preemptible": st.booleans(),
        "hold": st.booleans(),
    },
)


@given(DOCUMENTS)
def test_any_job_comes_back_from_the_store_from_its_yaml_and_from_its_document(document):
    spec = spec_from_document(document)
    assert JobSpec.from_store(spec.to_store()) == spec
    assert spec_from_document(spec.to_document()) == spec
    assert read_jobs(spec.to_yaml(), file="f.yaml") == [spec]
    assert JobSpec.from_store(spec.to_store()).shape() == spec.shape()


VALIDATOR = jsonschema.Draft202012Validator(json_schema())


@given(DOCUMENTS)
def test_any_job_and_its_resolved_form_fit_the_schema_for_editors(document):
    VALIDATOR.validate(document)
    VALIDATOR.validate(spec_from_document(document).to_document())


@given(DOCUMENTS)
def test_any_submitted_document_reads_back_from_its_source(document):
    spec = spec_from_document(document)
    assert read_jobs(spec.source, file="f.yaml") == [spec]


def test_a_file_reads_the_same_as_its_text(tmp_path):
    path = tmp_path / "nightly.yaml"
    path.write_text("run: x\n")
    assert read_job_file(path) == read_jobs("run: x\n", file=str(path))
