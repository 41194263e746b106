"""What a job file means: defaults, kinds, forms of each key, and the shape that placement sees."""

import os
import subprocess
import sys

import pytest

from gpusched.jobs.errors import SpecError
from gpusched.jobs.job import Shape
from gpusched.jobs.spec import (
    JobSpec,
    read_job_file,
    read_jobs,
    read_script,
    spec_from_document,
    spec_from_options,
)


def one(text, **given):
    (spec,) = read_jobs(text, file="dir/my job.yaml", environ={"TOKEN": "hush"}, **given)
    return spec


def test_a_file_with_a_command_alone_is_a_job_that_holds_no_gpu():
    spec = one("run: echo hi\n")
    assert (spec.kind, spec.name, spec.queue, spec.priority, spec.num_nodes) == ("command", "my-job", "default", 50, 1)
    assert spec.shape() == Shape(num_nodes=1, gpus=0, cpu_milli=1000)
    assert (spec.max_duration, spec.estimated_duration, spec.hold, spec.preemptible) == (None, None, False, False)
    assert (spec.checkpoint.patience, spec.checkpoint.signal, spec.checkpoint.dir) == (60, "SIGTERM", None)
    assert (spec.retry.limit, spec.retry.on) == (3, ("lost",))


@pytest.mark.parametrize(
    ("kind", "gpus", "retry"),
    [
        ("train", 1, (3, ("lost",))),
        ("inference", 1, (3, ("lost",))),
        ("service", 1, (10, ("failure", "lost"))),
        ("command", 0, (3, ("lost",))),
        ("Job", 0, (3, ("lost",))),
    ],
)
def test_the_kind_chooses_defaults(kind, gpus, retry):
    spec = one(f"apiVersion: gpusched/v1\nkind: {kind}\nrun: x\nresources: {{cpus: 2}}\n")
    assert spec.shape().gpus == gpus
    assert spec.resources.cpus == 2
    assert (spec.retry.limit, spec.retry.on) == retry


@pytest.mark.parametrize("kind", ["train", "inference", "service", "command"])
def test_the_kind_chooses_nothing_that_the_file_says(kind):
    common = "run: x\nresources: {accelerators: 0}\nretry: {limit: 1, on: [failure]}\n"
    spec = one(f"kind: {kind}\n{common}")
    assert spec.model_copy(update={"kind": "command"}) == one(common)


def test_retry_with_a_limit_alone_covers_failures():
    assert one("run: x\nretry: {limit: 1}\n").retry.on == ("failure", "lost")
    assert one("run: x\nretry: {on: lost}\n").retry.on == ("lost",)


ACCELERATORS = {
    "H100:8": (8, 0, ("H100",)),
    "h100:8": (8, 0, ("H100",)),
    "H100": (1, 0, ("H100",)),
    "8": (8, 0, ()),
    "'8'": (8, 0, ()),
    "8.0": (8, 0, ()),
    "GPU:2": (2, 0, ()),
    "0": (0, 0, ()),
    "0.5": (0, 500, ()),
    "A100:0.5": (0, 500, ("A100",)),
    "my-own.type:2": (2, 0, ("my-own.type",)),
    "[H100:8, A100:8]": (8, 0, ("H100", "A100")),
    "[H100:8]": (8, 0, ("H100",)),
    "[4]": (4, 0, ()),
    "{L4: 1, T4: 1}": (1, 0, ("L4", "T4")),
    "{L4:1, T4:1}": (1, 0, ("L4", "T4")),
    "{L4: '0.25'}": (0, 250, ("L4",)),
    "!!set {L4:1, T4:1}": (1, 0, ("L4", "T4")),
}


@pytest.mark.parametrize("text", ACCELERATORS)
def test_accelerators_are_given_in_many_forms(text):
    gpus, milli, types = ACCELERATORS[text]
    shape = one(f"run: x\nresources:\n  accelerators: {text}\n").shape()
    assert (shape.gpus, shape.gpu_milli, shape.gpu_types) == (gpus, milli, types)


@pytest.mark.parametrize(
    ("text", "milli"), [("8", 8000), ("8+", 8000), ("'8'", 8000), ("0.5", 500), ("500m", 500), ("1.5", 1500), ("0", 0)]
)
def test_cpus_are_given_in_many_forms(text, milli):
    assert one(f"run: x\nresources: {{cpus: {text}}}\n").shape().cpu_milli == milli


@pytest.mark.parametrize(("text", "size"), [("64GB", 64 * 10**9), ("64GiB", 64 * 2**30), ("64GB+", 64 * 10**9)])
def test_memory_is_given_with_a_unit(text, size):
    assert one(f"run: x\nresources: {{memory: {text}}}\n").shape().memory == size


def test_the_shape_is_all_that_placement_needs():
    spec = one(
        "run: x\nnum_nodes: 2\nlabels: {zone: a, rack: 7}\nplacement: {nodes: distinct}\n"
        "resources: {accelerators: [H100:8, A100:8], cpus: 8, memory: 64GB}\n"
    )
    assert spec.shape() == Shape(
        num_nodes=2,
        gpus=8,
        gpu_types=("H100", "A100"),
        cpu_milli=8000,
        memory=64 * 10**9,
        labels=(("rack", "7"), ("zone", "a")),
        distinct=True,
    )
    assert spec.shape().total_gpus == 16


def test_values_of_variables_stay_as_they_are_written():
    spec = one("run: x\nenv: {A: 1.10, B: no, C: true, D: 007, E: 12:30, F: 1e3, G: '', H: 2026-01-02}\n")
    assert spec.env == {
        "A": "1.10",
        "B": "no",
        "C": "true",
        "D": "007",
        "E": "12:30",
        "F": "1e3",
        "G": "",
        "H": "2026-01-02",
    }


def test_values_of_variables_from_python_become_text():
    spec = spec_from_document({"run": "x", "env": {"A": 1, "B": True, "C": 0.5}})
    assert spec.env == {"A": "1", "B": "true", "C": "0.5"}


def test_a_key_left_empty_is_a_key_left_out():
    assert one("run: x\nname: my-job\nenv:\nresources:\n  memory:\nmax_duration:\n") == one("run: x\nname: my-job\n")


def test_time_limit_is_max_duration():
    assert one("run: x\ntime_limit: 1:30:00\n").max_duration == 5400


def test_signals_may_be_written_short():
    assert one("run: x\ncheckpoint: {signal: INT}\n").checkpoint.signal == "SIGINT"


def test_a_file_may_hold_many_jobs_and_empty_documents():
    specs = read_jobs("---\nrun: a\n---\n---\nrun: b\n---\n", file="f.yaml")
    assert [spec.run for spec in specs] == ["a", "b"]


def test_json_is_yaml_and_a_schema_key_is_for_editors():
    assert one('{"$schema": "job.schema.json", "run": "x", "num_nodes": 2}').num_nodes == 2


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        one("run: x\n").priority = 3


# Scripts ---------------------------------------------------------------------------------------------------------

SCRIPT = """\
#!/bin/bash
#GPUSCHED name: bert
#GPUSCHED resources.accelerators: [H100:8, A100:8]
#GPUSCHED resources.memory: 64GB
#GPUSCHED labels.example.com/rack: 7
#GPUSCHED env.LR: 1.10
#GPUSCHED time_limit: 2h
#GPUSCHED secrets: [TOKEN]
# a comment

echo start
#GPUSCHEDULER is another word
"""


def test_a_script_is_a_job_with_the_script_as_its_command():
    spec = read_script(SCRIPT, file="bert.sh", environ={"TOKEN": "hush"})
    assert spec.run == SCRIPT
    assert (spec.name, spec.env, spec.labels, spec.max_duration) == (
        "bert",
        {"LR": "1.10"},
        {"example.com/rack": "7"},
        7200,
    )
    assert spec.shape().gpu_types == ("H100", "A100")
    assert spec.shape().memory == 64 * 10**9
    assert spec.secret_values() == {"TOKEN": "hush"}


def test_a_script_without_directives_is_named_after_its_file(tmp_path):
    path = tmp_path / "train me.sh"
    path.write_text("python train.py\n")
    (spec,) = read_job_file(path)
    assert (spec.name, spec.run) == ("train-me", "python train.py\n")


def test_a_file_that_begins_like_a_script_is_one(tmp_path):
    path = tmp_path / "job"
    path.write_text("#!/usr/bin/env python3\n#GPUSCHED priority: 80\nprint(1)\n")
    (spec,) = read_job_file(path)
    assert (spec.priority, spec.name) == (80, "job")


@pytest.mark.parametrize(
    ("line", "at", "key", "message"),
    [
        ("#GPUSCHED num_node: 2", (2, 11), "num_node", "unknown key"),
        ("#GPUSCHED resources.gpu: 2", (2, 11), "resources.gpu", "unknown key"),
        ("#GPUSCHED   priority:   high", (2, 25), "priority", "must be a whole number, not high"),
        ("#GPUSCHED max_duration: 60", (2, 25), "max_duration", "60 has no unit"),
        ("#GPUSCHED priority", (2, 1), "", "is no directive"),
        ("#GPUSCHED: priority=3", (2, 1), "", "is no directive"),
        ("#GPUSCHED labels.a: [", (2, 22), "", "is not valid YAML"),
        ("#GPUSCHED run: x", (2, 11), "run", "the script itself is what runs"),
        ("echo\n#GPUSCHED name: x", (3, 1), "name", "has no effect after the first command"),
        ("#GPUSCHED name: x\n#GPUSCHED name: y", (3, 11), "name", "is given twice; the first is in line 2"),
        ("#GPUSCHED labels: {a: b}\n#GPUSCHED labels.a: c", (3, 11), "labels.a", "is given twice"),
        ("#GPUSCHED retry: 3\n#GPUSCHED retry.limit: 3", (3, 11), "retry.limit", "`retry` is given as a whole above"),
        ("#GPUSCHED secrets.TOKEN: abc", (2, 26), "secrets.TOKEN", "cannot hold a secret's value"),
    ],
)
def test_a_fault_in_a_directive_is_named_with_its_place(line, at, key, message):
    with pytest.raises(SpecError) as caught:
        read_script(f"#!/bin/sh\n{line}\necho\n", file="job.sh", environ={})
    found = {(problem.line, problem.column): problem for problem in caught.value.problems}
    assert found[at].key == key
    assert message in found[at].message


# Options ---------------------------------------------------------------------------------------------------------


def test_options_alone_make_a_job():
    spec = spec_from_options(
        {
            "run": ["python", "train.py", "--name", "my run"],
            "resources.accelerators": "H100:8,A100:8",
            "priority": "80",
            "num_nodes": 2,
            "max_duration": "2h",
            "env": {"A": "1"},
            "hold": True,
            "queue": None,
        }
    )
    assert spec.run == "python train.py --name 'my run'"
    assert (spec.name, spec.priority, spec.num_nodes, spec.max_duration, spec.hold) == ("python", 80, 2, 7200, True)
    assert spec.shape().gpu_types == ("H100", "A100")
    assert (spec.queue, spec.env) == ("default", {"A": "1"})


def test_a_wrong_option_is_named_as_it_was_typed():
    with pytest.raises(SpecError) as caught:
        spec_from_options(
            {"run": "x", "max_duration": "60", "num_nodes": 0, "resources.memory": "64", "env": {"1A": "x"}},
            names={"max_duration": "--time", "resources.memory": "--mem", "env": "--env"},
        )
    assert sorted((problem.key, problem.file, problem.line) for problem in caught.value.problems) == [
        ("--env", "command line", 0),
        ("--mem", "command line", 0),
        ("--num-nodes", "command line", 0),
        ("--time", "command line", 0),
    ]


def test_options_win_over_the_file():
    spec = one(
        "run: x\npriority: 1\ntime_limit: 1h\nresources: {accelerators: 8, cpus: 2}\nenv: {A: a, B: b}\n",
        options={
            "priority": 2,
            "max_duration": "3h",
            "resources.accelerators": "H100:4",
            "env": {"B": "c"},
            "hold": None,
        },
    )
    assert (spec.priority, spec.max_duration, spec.env) == (2, 10800, {"A": "a", "B": "c"})
    assert (spec.shape().gpus, spec.resources.cpus) == (4, 2)


def test_the_faults_of_files_and_options_are_told_apart():
    with pytest.raises(SpecError) as caught:
        one(
            "run: x\nresources: {memory: 64}\nenv: {1A: x}\n",
            options={"priority": 200, "env": {"2B": "x"}},
            names={"priority": "--priority", "env": "-e"},
        )
    assert [(p.file, p.line, p.key) for p in caught.value.problems] == [
        ("command line", 0, "--priority"),
        ("command line", 0, "-e"),
        ("dir/my job.yaml", 2, "resources.memory"),
        ("dir/my job.yaml", 3, "env.1A"),
    ]


def test_an_option_does_not_hide_a_fault_of_the_file():
    with pytest.raises(SpecError, match="resources: must be a mapping"):
        one("run: x\nresources: 8\n", options={"resources.cpus": 2})
    with pytest.raises(SpecError, match="env: must be a mapping"):
        one("run: x\nenv: [A]\n", options={"env": {"A": "b"}})


# Plain data and cost ---------------------------------------------------------------------------------------------


def test_plain_data_makes_a_job_or_problems_with_keys():
    assert spec_from_document({"run": "x", "max_duration": "2h"}).max_duration == 7200
    with pytest.raises(SpecError) as caught:
        spec_from_document({"rum": "x", "max_duration": 60}, source="request")
    assert sorted((p.file, p.line, p.key) for p in caught.value.problems) == [
        ("request", 0, "max_duration"),
        ("request", 0, "rum"),
        ("request", 0, "run"),
    ]
    with pytest.raises(SpecError, match="a job must be a mapping"):
        spec_from_document(["run"])


def test_the_constructor_takes_what_a_file_takes():
    assert JobSpec(run="x", max_duration="2h", resources={"memory": "64GB"}).resources.memory == 64 * 10**9


def test_the_job_module_does_not_load_pydantic():
    code = "import sys, gpusched.jobs.job, gpusched.jobs.events, gpusched.jobs.units; print('pydantic' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout == "False\n"
