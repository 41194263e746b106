"""Every fault of a job file: its line, its column, its key, its words and its suggestion, all at once."""

import jsonschema
import pytest

from gpusched.jobs.errors import SpecError
from gpusched.jobs.spec import json_schema, read_job_file, read_jobs
from gpusched.jobs.yaml_marks import documents


def problems(text, **given):
    with pytest.raises(SpecError) as caught:
        read_jobs(text, file="job.yaml", environ={}, **given)
    assert caught.value.exit_code == 4
    return caught.value.problems


def only(text):
    (problem,) = problems(text)
    assert problem.file == "job.yaml"
    return problem


# document -> line, column, key, words, hint
ONE_FAULT = {
    # Keys
    "run: x\nnum_node: 2\n": (2, 1, "num_node", "unknown key", "did you mean `num_nodes`?"),
    "run: x\nnum-nodes: 2\n": (2, 1, "num-nodes", "unknown key", "did you mean `num_nodes`?"),
    "run: x\nenvs: {}\n": (2, 1, "envs", "unknown key", "did you mean `env`?"),
    "run: x\nnodes: 2\n": (2, 1, "nodes", "unknown key", "did you mean `num_nodes`?"),
    "run: x\npartition: a\n": (2, 1, "partition", "unknown key", "did you mean `queue`?"),
    "run: x\ngpus: 8\n": (2, 1, "gpus", "unknown key", "did you mean `resources.accelerators`?"),
    "run: x\naccelerators: 8\n": (2, 1, "accelerators", "unknown key", "did you mean `resources.accelerators`?"),
    "run: x\ngrace: 8s\n": (2, 1, "grace", "unknown key", "did you mean `checkpoint.grace`?"),
    "run: x\nresources: {priority: 3}\n": (2, 13, "resources.priority", "unknown key", "did you mean `priority`?"),
    "run: x\nresources: {acelerators: 3}\n": (
        2,
        13,
        "resources.acelerators",
        "unknown key",
        "did you mean `accelerators`?",
    ),
    "run: x\nretry:\n  times: 3\n": (3, 3, "retry.times", "unknown key", "known here: limit, on"),
    "run: x\n7: y\n": (2, 1, "7", "unknown key", "known here"),
    "run: x\nname: a\nname: b\n": (3, 1, "name", "is given twice; the first is in line 2", "keep one"),
    "run: x\nmax_duration: 1h\ntime_limit: 2h\n": (3, 1, "time_limit", "is the same as `max_duration`", "keep one"),
    # What is needed
    "name: a\n": (1, 1, "run", "is required", "write `run: ...`"),
    "name: a\nrun:\n": (2, 1, "run", "is required", "write `run: ...`"),
    "run: ''\n": (1, 6, "run", "must not be empty", ""),
    "run: |\n\n  \nname: a\n": (1, 6, "run", "must not be empty", ""),
    "run: [python, x]\n": (1, 6, "run", "must be text, not a list", ""),
    "run: 5\n": (1, 6, "run", "must be text, not 5", 'put it in quotes: "5"'),
    'run: "a\\0b"\n': (1, 6, "run", "must not contain a NUL character", ""),
    # Names
    "run: x\nname: 2026\n": (2, 7, "name", "must be text, not 2026", "quotes"),
    "run: x\nname: '2026'\n": (2, 7, "name", "`2026` would be taken for a number", "write `job-2026`"),
    "run: x\nname: my job\n": (2, 7, "name", "`my job` is no name", "write `my-job`"),
    "run: x\nqueue: a/b\n": (2, 8, "queue", "`a/b` is no name", "write `a-b`"),
    "run: x\nkind: trian\n": (
        2,
        7,
        "kind",
        "must be train, inference, service or command, not trian",
        "did you mean `train`?",
    ),
    "run: x\napiVersion: v2\n": (2, 13, "apiVersion", "must be gpusched/v1, not v2", ""),
    # Numbers
    "run: x\npriority: 101\n": (2, 11, "priority", "must be from 0 to 100, not 101", ""),
    "run: x\npriority: -1\n": (2, 11, "priority", "must be from 0 to 100, not -1", ""),
    "run: x\npriority: high\n": (2, 11, "priority", "must be a whole number, not high", ""),
    "run: x\npriority: '5'\n": (2, 11, "priority", "must be a whole number, not 5", "remove the quotes"),
    "run: x\npriority: true\n": (2, 11, "priority", "must be a whole number, not true", ""),
    "run: x\npriority: .nan\n": (2, 11, "priority", "must be a whole number, not nan", ""),
    "run: x\nnum_nodes: 0\n": (2, 12, "num_nodes", "must be from 1 to 100,000, not 0", ""),
    "run: x\nnum_nodes: -2\n": (2, 12, "num_nodes", "must be from 1 to 100,000, not -2", ""),
    "run: x\nnum_nodes: 1.5\n": (2, 12, "num_nodes", "must be a whole number, not 1.5", ""),
    "run: x\nnum_nodes: 1000000000000\n": (2, 12, "num_nodes", "must be from 1 to 100,000", ""),
    "run: x\npreemptible: yes\n": (2, 14, "preemptible", "must be true or false, not yes", "write true"),
    "run: x\nhold: 'off'\n": (2, 7, "hold", "must be true or false, not off", "write false"),
    # Durations
    "run: x\nmax_duration: 60\n": (2, 15, "max_duration", "60 has no unit", "write 60s for seconds"),
    "run: x\ntime_limit: 60\n": (2, 13, "time_limit", "60 has no unit", "write 60s for seconds"),
    "run: x\nmax_duration: 0s\n": (2, 15, "max_duration", "must be longer than nothing", "leave the key out"),
    "run: x\nmax_duration: .nan\n": (2, 15, "max_duration", "nan is no duration with a unit", "90s"),
    "run: x\nmax_duration: [1h]\n": (2, 15, "max_duration", "must be a duration, not a list", "90s"),
    "run: x\nmin_runtime: true\n": (2, 14, "min_runtime", "must be a duration, not true", "90s"),
    "run: x\nestimated_duration: 20y\n": (2, 21, "estimated_duration", "20y is no duration", "90s"),
    "run: x\ncheckpoint: {grace: 25h}\n": (2, 21, "checkpoint.grace", "is longer than a day", "24h"),
    # Sizes
    "run: x\nresources: {memory: 64}\n": (2, 21, "resources.memory", "64 has no unit", "write 64GB, 64GiB or 64MB"),
    "run: x\nresources: {memory: 1e30GB}\n": (2, 21, "resources.memory", "1e30GB is no size", "64GiB"),
    "run: x\nresources: {memory: -1GB}\n": (2, 21, "resources.memory", "-1GB is negative", "64GiB"),
    "run: x\nresources: {memory: 9999PB}\n": (2, 21, "resources.memory", "9999PB is more memory than any", "1PiB"),
    "run: x\nresources: {memory: []}\n": (2, 21, "resources.memory", "must be a size, not a list", "64GiB"),
    "run: x\nresources: {cpus: -1}\n": (2, 19, "resources.cpus", "must be from 0 to 100,000 CPUs, not -1", ""),
    "run: x\nresources: {cpus: .inf}\n": (2, 19, "resources.cpus", "must be from 0 to 100,000 CPUs, not inf", ""),
    "run: x\nresources: {cpus: .nan}\n": (2, 19, "resources.cpus", "must be from 0 to 100,000 CPUs, not nan", ""),
    "run: x\nresources: {cpus: lots}\n": (2, 19, "resources.cpus", "`lots` is no number of CPUs", "500m"),
    "run: x\nresources: {cpus: true}\n": (2, 19, "resources.cpus", "must be a number of CPUs, not true", "500m"),
    "run: x\nresources: {cpus: 0.00001}\n": (2, 19, "resources.cpus", "1e-05 CPUs is too fine", "1m"),
    # Accelerators
    "run: x\nresources: {accelerators: 8:H100}\n": (
        2,
        27,
        "resources.accelerators",
        "`8:H100` is no",
        "did you mean `H100:8`?",
    ),
    "run: x\nresources: {accelerators: 8xH100}\n": (
        2,
        27,
        "resources.accelerators",
        "`8xH100` is no",
        "did you mean `H100:8`?",
    ),
    "run: x\nresources: {accelerators: 'H100:80GB:8'}\n": (
        2,
        27,
        "resources.accelerators",
        "is no accelerator",
        "type and count only",
    ),
    "run: x\nresources: {accelerators: 'H100:8, A100:8'}\n": (
        2,
        27,
        "resources.accelerators",
        "is no accelerator",
        "[H100:8, A100:8]",
    ),
    "run: x\nresources: {accelerators: -1}\n": (
        2,
        27,
        "resources.accelerators",
        "must be from 0 to 1,024 GPUs on each node, not -1",
        "",
    ),
    "run: x\nresources: {accelerators: 'H100:5000'}\n": (
        2,
        27,
        "resources.accelerators",
        "must be from 0 to 1,024",
        "",
    ),
    "run: x\nresources: {accelerators: 1.5}\n": (
        2,
        27,
        "resources.accelerators",
        "1.5 GPUs is neither whole nor a",
        "less than 1",
    ),
    "run: x\nresources: {accelerators: 0.0001}\n": (
        2,
        27,
        "resources.accelerators",
        "0.0001 of a GPU is too fine",
        "0.001",
    ),
    "run: x\nresources: {accelerators: 0.3333}\n": (
        2,
        27,
        "resources.accelerators",
        "0.3333 of a GPU is too fine",
        "0.001",
    ),
    "run: x\nresources: {accelerators: .nan}\n": (2, 27, "resources.accelerators", "must be from 0 to 1,024", ""),
    "run: x\nresources: {accelerators: true}\n": (
        2,
        27,
        "resources.accelerators",
        "must be a number of GPUs, not true",
        "H100:8",
    ),
    "run: x\nresources: {accelerators: []}\n": (2, 27, "resources.accelerators", "names no accelerator", "write 0"),
    "run: x\nresources: {accelerators: [H100:8, A100:4]}\n": (
        2,
        36,
        "resources.accelerators[1]",
        "asks for 4 where the first asks for 8",
        "one count",
    ),
    "run: x\nresources: {accelerators: [H100:8, h100:8]}\n": (
        2,
        36,
        "resources.accelerators[1]",
        "H100 is named twice",
        "keep one",
    ),
    "run: x\nresources: {accelerators: [H100:8, 8]}\n": (
        2,
        27,
        "resources.accelerators",
        "a GPU of any type stands beside",
        "name the types",
    ),
    "run: x\nresources: {accelerators: {H100: eight}}\n": (
        2,
        34,
        "resources.accelerators.H100",
        "must be a number of GPUs, not eight",
        "",
    ),
    "run: x\nresources: {accelerators: {8 H100: 8}}\n": (
        2,
        28,
        "resources.accelerators.8 H100",
        "`8 H100` is no accelerator type",
        "H100: 8",
    ),
    # Mappings
    "run: x\nresources: 8\n": (2, 12, "resources", "must be a mapping of keys to values, not 8", "`accelerators`"),
    "run: x\nretry: 3\n": (2, 8, "retry", "must be a mapping of keys to values, not 3", "write `retry: {limit: 3}`"),
    "run: x\nenv: [A=1]\n": (2, 6, "env", "must be a mapping of names to text, not a list", "`NAME: value`"),
    "run: x\nenv: {A: }\n": (2, 7, "env.A", "has no value", 'write ""'),
    "run: x\nenv: {A: [1]}\n": (2, 10, "env.A", "must be text, not a list", ""),
    "run: x\nenv: {1A: x}\n": (2, 7, "env.1A", "`1A` is no variable name", "letters"),
    "run: x\nenv: {GPUSCHED_JOB_ID: 1}\n": (2, 7, "env.GPUSCHED_JOB_ID", "is set by gpusched itself", "another name"),
    "run: x\nenv: {CUDA_VISIBLE_DEVICES: 0}\n": (2, 7, "env.CUDA_VISIBLE_DEVICES", "is set by gpusched itself", ""),
    "run: x\nenv: {A: " + "x" * 131_072 + "}\n": (2, 10, "env.A", "is longer than 128 KiB", "workdir"),
    "run: x\nlabels: {a b: c}\n": (2, 10, "labels.a b", "`a b` is no label key", "`zone`"),
    "run: x\nlabels: {a: b c}\n": (2, 13, "labels.a", "`b c` is no label value", "at most 63"),
    "run: x\nannotations: {a: {b: c}}\n": (2, 18, "annotations.a", "must be text, not a mapping", ""),
    "run: x\nplacement: {topology: {required: rack, preferred: pod}}\n": (
        2,
        23,
        "placement.topology",
        "required and preferred",
        "keep one of them",
    ),
    "run: x\nplacement: {topology: rack}\n": (
        2,
        23,
        "placement.topology",
        "must be a mapping",
        "write `topology: {required: rack}`",
    ),
    "run: x\nplacement: {topology: {require: rack}}\n": (
        2,
        24,
        "placement.topology.require",
        "unknown key",
        "did you mean `required`?",
    ),
    "run: x\nplacement: {nodes: distinkt}\n": (
        2,
        20,
        "placement.nodes",
        "must be any or distinct",
        "did you mean `distinct`?",
    ),
    # Secrets, retry, checkpoint
    "run: x\nsecrets: [TOKEN]\n": (2, 11, "secrets[0]", "`TOKEN` is not set in your environment", "export TOKEN"),
    "run: x\nsecrets: {TOKEN: }\n": (2, 11, "secrets.TOKEN", "`TOKEN` is not set in your environment", "export TOKEN"),
    "run: x\nsecrets: TOKEN\n": (2, 10, "secrets", "must be a list of names or a mapping, not TOKEN", "[HF_TOKEN]"),
    "run: x\nsecrets: {A-B: x}\n": (2, 11, "secrets.A-B", "`A-B` is no variable name", ""),
    "run: x\nsecrets: [[a]]\n": (2, 11, "secrets[0]", "must be a name, not a list", ""),
    "run: x\nsecrets: {T: '***'}\n": (2, 14, "secrets.T", "is masked, not a value", "`secrets: [T]`"),
    "run: x\nenv: {T: a}\nsecrets: {T: b}\n": (3, 11, "secrets.T", "`T` is in `env` too", "keep one"),
    "run: x\nretry: {limit: -1}\n": (2, 16, "retry.limit", "must be from 0 to 1,000, not -1", ""),
    "run: x\nretry: {on: [sometimes]}\n": (2, 14, "retry.on[0]", "must be failure, lost or exit:N", ""),
    "run: x\nretry: {on: [lost, exit:256]}\n": (2, 20, "retry.on[1]", "must be failure, lost or exit:N", ""),
    "run: x\nretry: {on: [3]}\n": (2, 14, "retry.on[0]", "must be failure, lost or exit:N", "write exit:3"),
    "run: x\nretry: {on: 3}\n": (2, 13, "retry.on", "must be a list, not 3", "on: [failure, lost]"),
    "run: x\ncheckpoint: {signal: SIGKILL}\n": (2, 22, "checkpoint.signal", "SIGKILL cannot be caught", "SIGTERM"),
    "run: x\ncheckpoint: {signal: SIGTREM}\n": (
        2,
        22,
        "checkpoint.signal",
        "SIGTREM is no signal",
        "did you mean `SIGTERM`?",
    ),
    "run: x\ncheckpoint: {dir: ''}\n": (2, 19, "checkpoint.dir", "must not be empty", ""),
    # The whole document
    "- a\n- b\n": (1, 1, "", "a job is a mapping of keys to values, not a list", "run: COMMAND"),
    "python train.py\n": (1, 1, "", "a job is a mapping of keys to values, not text", "run: COMMAND"),
    "": (1, 1, "", "the file is empty", "run: COMMAND"),
    "# nothing\n---\n": (1, 1, "", "the file is empty", "run: COMMAND"),
}


@pytest.mark.parametrize("text", ONE_FAULT, ids=lambda text: text[:60])
def test_a_fault_is_named_with_its_place_and_its_mend(text):
    line, column, key, message, hint = ONE_FAULT[text]
    problem = only(text)
    assert (problem.line, problem.column, problem.key) == (line, column, key)
    assert message in problem.message
    assert hint in problem.hint


BEYOND_SCHEMA = (
    # Rules between keys, and with the submitter's environment
    "is given twice",
    "is the same as",
    "is in `env` too",
    "is not set in your environment",
    "asks for 4 where the first asks for 8",
    "is named twice",
    "a GPU of any type stands beside",
    # Limits of quantities that are written as text, and their smallest steps
    "must be longer than nothing",
    "is longer than",
    "is more memory than any",
    "is too fine",
    "must be from 0 to 1,024",
    # JSON has no such numbers
    "not inf",
    "not nan",
    "nan is no",
    # One wish at most
    "required and preferred",
    # Texts, not values
    "must not contain a NUL",
    "the file is empty",
)
"""What the model refuses and a JSON schema cannot, or cannot well."""


@pytest.mark.parametrize("text", ONE_FAULT, ids=lambda text: text[:60])
def test_the_schema_for_editors_refuses_what_the_model_refuses(text):
    message = ONE_FAULT[text][3]
    values = [root.value() for root in documents(text, "f", [])]
    accepted = all(jsonschema.Draft202012Validator(json_schema()).is_valid(value) for value in values)
    if accepted:
        assert message.startswith(BEYOND_SCHEMA) or any(words in message for words in BEYOND_SCHEMA)


def test_all_faults_are_reported_at_once_in_the_order_of_the_file():
    found = problems(
        """\
num_node: 3
priority: high
resources:
  accelerators: [H100:8, A100:4, "8:H100"]
  memory: 64
  cpu: 3
env: {1A: 2, OK: , L: [1]}
secrets: [TOKEN, OK]
max_duration: 60
checkpoint: {grace: 99d, signal: KILL}
workdir: ""
workdir: x
"""
    )
    assert [(problem.line, problem.column, problem.key) for problem in found] == [
        (1, 1, "run"),
        (1, 1, "num_node"),
        (2, 11, "priority"),
        (4, 26, "resources.accelerators[1]"),
        (4, 34, "resources.accelerators[2]"),
        (5, 11, "resources.memory"),
        (6, 3, "resources.cpu"),
        (7, 7, "env.1A"),
        (7, 14, "env.OK"),
        (7, 23, "env.L"),
        (8, 11, "secrets[0]"),
        (8, 18, "secrets[1]"),
        (9, 15, "max_duration"),
        (10, 21, "checkpoint.grace"),
        (10, 34, "checkpoint.signal"),
        (11, 10, "workdir"),
        (12, 1, "workdir"),
    ]


def test_a_problem_reads_as_one_line():
    (problem,) = problems("run: x\nnum_node: 2\n")
    assert str(problem) == "job.yaml:2:1: num_node: unknown key (did you mean `num_nodes`?)"


def test_several_documents_are_read_all_or_none_and_all_are_checked():
    found = problems("run: a\n---\nrun: b\nnam: x\n---\nrun: c\npriority: 101\n---\nrun: d\n")
    assert [(problem.line, problem.key) for problem in found] == [(4, "nam"), (7, "priority")]


def test_faults_before_a_syntax_error_are_reported_with_it():
    found = problems("run: a\nnam: x\n---\nrun: [\n")
    assert [problem.line for problem in found] == [2, 4]


def test_a_file_without_end_of_problems_is_not_read_to_its_end():
    found = problems("---\n{}\n" * 5000)
    assert len(found) == 1001
    assert "the rest was not read" in found[-1].message


def test_a_file_of_too_many_jobs_is_refused():
    found = problems("---\nrun: a\n" * 10_001)
    assert "more than 10,000 jobs" in found[-1].message


@pytest.mark.parametrize("content", [None, b"\xff\xfe\0", b"run: x\0", b"a: 1\n" * 300_000])
def test_a_file_that_cannot_be_read_is_one_problem(tmp_path, content):
    path = tmp_path / "job.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        read_job_file(path)
    (problem,) = caught.value.problems
    assert problem.file == str(path)


def test_a_folder_is_no_job_file(tmp_path):
    with pytest.raises(SpecError, match="cannot be read: Is a directory"):
        read_job_file(tmp_path)
