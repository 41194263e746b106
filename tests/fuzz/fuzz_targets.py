"""Everything that reads what a stranger may have written, as functions of bytes, with valid documents to begin from.

Each either returns or raises one GpuschedError; anything else is a fault of ours. The hypothesis test and the atheris
harness of this folder share them.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpusched.cluster.inventory import read_cluster
from gpusched.cluster.profile_file import read_text as read_profile
from gpusched.jobs.errors import GpuschedError
from gpusched.jobs.job import Shape
from gpusched.jobs.spec import JobSpec, read_job_file, read_jobs, read_script
from gpusched.jobs.traces.catalog import read_trace
from gpusched.jobs.traces.export import write_export
from gpusched.jobs.traces.trace import TraceJob
from gpusched.jobs.units import UnitError, parse_duration, parse_size
from gpusched.policies.catalog import load
from gpusched.scheduler import config
from gpusched.scheduler.api import asked
from gpusched.scheduler.assertions.reading import read_suite
from gpusched.scheduler.queues import parse_queues

JOB = """apiVersion: gpusched/v1
kind: train
name: llama
queue: research
priority: 80
num_nodes: 2
resources: {accelerators: "H100:8", cpus: 8+, memory: 64GB}
labels: {zone: a}
placement: {nodes: distinct}
env: {LR: 0.001, MODE: no}
secrets: {TOKEN: abc}
max_duration: 1-12:00:00
checkpoint: {dir: /data, signal: USR1, grace: 2m}
retry: {limit: 3, on: [failure, lost]}
preemptible: true
annotations: {note: "x"}
run: |
  python train.py
---
run: &a echo
env: {A: *a}
"""
SCRIPT = """#!/bin/bash
#GPUSCHED name: script
#GPUSCHED resources.accelerators: H100:8
#GPUSCHED env: {A: b}
python train.py
"""
QUEUES = """apiVersion: gpusched/v1
kind: Queues
default_queue: nlp
queues:
  - name: lab
    nominal_quota: {A100: 4}
  - name: nlp
    parent: lab
    nominal_quota: {H100: 8, A100: 16}
    borrowing_limit: {H100: 4}
    weight: 2
    min_runtime: 10m
    limits:
      running_jobs: 50
      per_user: {gpus: 8, running_jobs: 10}
    users: {ann: 2}
"""
PROFILE = """description: two generations
start_up: {1: 20s, 64: 90s}
restore: 45s
grace: 30s
checkpoint:
  interval: 30m
  cost: 20s
  before_stop: true
rate:
  by_type: {H100: 1, default: 0.3}
  models:
    vgg19: {by_nodes: {2: 0.6}}
failures:
  retries: 5
  nodes: {mtbf: 60d, repair: 4h, by_type: {A100: {mtbf: 20d}}}
  jobs: {probability: 0.02, mtbf: {64: 7d}}
overruns: {probability: 0.01, factor: 3}
limits: estimates
"""
CLUSTER = """- {name: a, gpus: 8, gpu_type: H100, cpus: 64, memory: 512GiB, labels: {rack: r1}}
- {count: 3, gpus: 4}
"""
SUITE = """apiVersion: gpusched/v1
kind: PolicyTest
trace: generate:jobs=40,mix=helios,load=0.7,users=5
cluster: 8x8:H100
policies: [easy, fair]
window: full
seeds: 2
assert:
  - name: soon
    metric: queueing_delay_p95
    below: 30m
  - metric: rho_themis_jain
    above: 0.4
"""
CONFIG = "address: http://host:6810\nuser: ann\nport: 6810\noutput: json\n"
TRACES = {
    "generic": "job_id,submit_time,num_gpus,duration\n1,0,1,100\n2,2026-01-31 10:00:00,8,60.5\n",
    "swf": "; UnixStartTime: 0\n"
    "1 0 5 100 4 -1 -1 4 200 -1 1 1 1 1 1 -1 -1 -1\n"
    "2 9 5 100 4 -1 -1 4 200 -1 1 1 1 1 1 -1 -1 -1\n",
    "slurm": "JobID|Submit|Start|End|AllocTRES|State\n"
    "1|2026-01-01T00:00:00|2026-01-01T00:01:00|2026-01-01T01:00:00|gres/gpu=4|COMPLETED\n",
    "philly-log": '[{"status":"Pass","vc":"v","jobid":"a","attempts":[{"start_time":"2017-10-09 07:02:45",'
    '"end_time":"2017-10-09 08:02:45","detail":[{"ip":"m1","gpus":["gpu0"]}]}],'
    '"submitted_time":"2017-10-09 07:02:28","user":"u"}]',
    "helios": "job_id,user,vc,gpu_num,cpu_num,node_num,state,submit_time,start_time,end_time,duration,queue\n"
    "1,u,v,8,32,1,COMPLETED,2020-04-01 00:00:00,2020-04-01 00:00:05,2020-04-01 01:00:05,3600,5\n",
}
BODY = (
    '{"jobs": [{"spec": "{\\"run\\":\\"true\\"}", "source": "x", "secrets": {}, "snapshot": null}],'
    ' "documents": [{"text": "run: a"}], "hold": true}'
)


def _export(style: Literal["csv", "jsonl"]) -> str:
    shape = Shape(num_nodes=2, gpus=8, gpu_types=("H100", "A100"), labels=(("rack", "a"),))
    file = io.StringIO()
    write_export(file, [TraceJob(0, "train", 0, 60, shape), TraceJob(1, "b", 5.5, 60, Shape(gpus=1))], style=style)
    return file.getvalue()


Read = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Target:
    """A parser: its name, how it reads bytes, and what valid documents look like."""

    name: str
    read: Read
    seeds: tuple[str, ...]


def words(data: bytes) -> str:
    """Bytes as the text that a program would be given for them."""
    return data.decode("utf-8", "surrogateescape")


@contextlib.contextmanager
def as_file(data: bytes, name: str) -> Iterator[str]:
    """Bytes as a file of this name."""
    with tempfile.TemporaryDirectory(prefix="gpusched-fuzz-") as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        yield str(path)


def _file(name: str, read: Callable[[str], object]) -> Read:
    def reading(data: bytes) -> object:
        with as_file(data, name) as path:
            return read(path)

    return reading


def _policy(data: bytes) -> object:
    name = words(data)
    return None if ":" in name else load(name)  # what has a colon is a file or module to run, which is its purpose


def _config(data: bytes) -> object:
    with as_file(data, config.PROJECT_FILE) as path:
        return config.load({}, {}, Path(path).parent, system=Path(path, "absent"))


def _units(data: bytes) -> object:
    found: list[float] = []
    for read in (parse_duration, parse_size):
        with contextlib.suppress(UnitError):
            found.append(read(words(data)))
    return found


def _stored(data: bytes) -> object:
    spec = JobSpec.from_store(words(data), {"TOKEN": "x"})
    return spec.shape(), spec.to_document()


def _shown(path: str) -> object:
    return [spec.to_yaml() for spec in read_job_file(path, environ={})]


def _jobs(data: bytes) -> object:
    return [(spec.shape(), spec.to_store()) for spec in read_jobs(data, file="job.yaml", environ={})]


TARGETS = {
    target.name: target
    for target in (
        Target("job file", _jobs, (JOB,)),
        Target("job file from disk", _file("job.yaml", _shown), (JOB, SCRIPT)),
        Target("script", lambda data: read_script(data, file="job.sh", environ={}), (SCRIPT,)),
        Target("stored spec", _stored, (read_jobs(JOB, file="job.yaml", environ={})[0].to_store(),)),
        Target("submission", lambda data: asked.Submission(data).requests, (BODY,)),
        Target("queue file", lambda data: parse_queues(data, file="queues.yaml"), (QUEUES,)),
        Target("profile", lambda data: read_profile(data, "profile.yaml"), (PROFILE,)),
        Target("cluster file", _file("cluster.yaml", read_cluster), (CLUSTER,)),
        Target("cluster table", _file("cluster.csv", read_cluster), ("name,gpus,gpu_type\na,8,H100\nb,4,A100\n",)),
        Target("assertions", _file("suite.yaml", read_suite), (SUITE,)),
        Target("configuration", _config, (CONFIG,)),
        Target("policy", _policy, ("easy?depth=2", "srtf?margin=60s+best_fit+skip+preempt", "conservative?depth=all")),
        Target("units", _units, ("1h30m", "1-12:00:00", "64GiB", "90s")),
        Target("trace", _file("trace.csv", read_trace), (*TRACES.values(), _export("csv"), _export("jsonl"))),
    )
}


def check(target: Target, data: bytes) -> None:
    """Read it; a GpuschedError with words in it is an answer, anything else is not."""
    try:
        target.read(data)
    except GpuschedError as error:
        said = error.message
    else:
        return
    assert 0 < len(said) < 1 << 20, f"{target.name}: an error without words, or with too many"
