"""Whose the processes of a node are and what they use: real process trees, read through a real /proc."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

BURN = "import time; end = time.process_time() + {}\nwhile time.process_time() < end: pass\n"
READY = "print('ready', flush=True); import sys; sys.stdin.read()"


class Jobs:
    """Starts processes as a supervisor does: the markers in their environment, a session of their own."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *command: str, job: object = 7, attempt: object = 1, **env: str) -> subprocess.Popen[str]:
        markers = {"GPUSCHED_JOB_ID": str(job), "GPUSCHED_ATTEMPT": str(attempt), "TEST_RUN": self.run, **env}
        return self.start_unmarked(*command, env=os.environ | markers)

    def start_unmarked(self, *command: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, start_new_session=True
        )
        self.processes.append(process)
        return process

    def python(self, code: str, **markers: str) -> subprocess.Popen[str]:
        """Python that runs `code` and then waits until its input ends; returns when the code has run."""
        process = self.start(sys.executable, "-c", f"{code}\n{READY}", **markers)
        assert process.stdout.readline() == "ready\n"
        return process


@pytest.fixture
def jobs(tmp_path) -> Iterator[Jobs]:
    started = Jobs(str(tmp_path))
    yield started
    for process in started.processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def until(true: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_job_is_the_sum_of_the_processes_that_carry_its_markers(jobs, start_sampler):
    first, second = jobs.python(""), jobs.python("")
    other = jobs.python("", job=8, attempt=3)
    sample = start_sampler().sample()
    assert [(job["job"], job["attempt"]) for job in sample["jobs"]] == [(7, 1), (8, 3)]
    seven, eight = sample["jobs"]
    assert sorted(seven["pids"]) == sorted([first.pid, second.pid])
    assert seven["processes"] == 2
    assert eight["pids"] == [other.pid]
    assert eight["memory"] == pytest.approx(resident(other.pid), rel=0.2)


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_child_that_cleared_its_environment_is_its_parents(jobs, start_sampler):
    child = "import subprocess, sys; print(subprocess.Popen(['env', '-i', 'setsid', 'sleep', '100']).pid, flush=True)"
    parent = jobs.start(sys.executable, "-c", f"{child}; sys.stdin.read()")
    pid = int(parent.stdout.readline())
    sampler = start_sampler()
    until(lambda: set(sampler.sample()["jobs"][0]["pids"]) == {parent.pid, pid})
    parent.kill()
    parent.wait()
    # An orphan now, and still the job's: that is how leaked processes are found.
    assert sampler.sample()["jobs"][0]["pids"] == [pid]
    os.kill(pid, 9)
    until(lambda: sampler.sample()["jobs"] == [])


def test_a_process_is_found_though_it_was_first_seen_before_it_took_its_job_on(jobs, start_sampler, tmp_path):
    sampler = start_sampler()
    marks = f"TEST_RUN={tmp_path} GPUSCHED_JOB_ID=5 GPUSCHED_ATTEMPT=2"
    process = jobs.start_unmarked("sh", "-c", f"read x; {marks} exec sleep 100")
    assert sampler.sample()["jobs"] == []
    process.stdin.write("\n")
    process.stdin.flush()
    until(lambda: [job["job"] for job in sampler.sample()["jobs"]] == [5])


def test_a_process_that_overwrote_its_environment_is_counted_once_it_is_watched(jobs, start_sampler):
    sampler = start_sampler()
    worker = jobs.start_unmarked("env", "-i", "sh", "-c", "sleep 100 & echo; wait")
    worker.stdout.readline()
    assert sampler.sample()["jobs"] == []
    sampler.watch(worker.pid, 9, 1)
    (job,) = sampler.sample()["jobs"]
    assert job["job"] == 9
    assert job["processes"] == 2, "what it had started already is the job's too"


def test_marks_that_are_not_ours_are_left_alone(jobs, start_sampler):
    jobs.python("", job="not-a-number")
    jobs.python("", attempt="")
    assert start_sampler().sample()["jobs"] == []


def test_only_the_processes_of_this_node_count_where_nodes_share_a_machine(jobs, start_sampler):
    ours = jobs.python("", GPUSCHED_NODE="n1")
    jobs.python("", GPUSCHED_NODE="n2")
    (job,) = start_sampler(only={"GPUSCHED_NODE": "n1"}).sample()["jobs"]
    assert job["pids"] == [ours.pid]


def test_cpu_is_in_cores_since_the_last_sample_and_unknown_at_the_first(jobs, start_sampler):
    sampler = start_sampler()
    jobs.python("")
    assert sampler.sample()["jobs"][0]["cpu"] is None
    seconds = Seconds(sampler)
    process = jobs.python(BURN.format(0.4))
    used = sum(os_times(process.pid))
    assert seconds.add() == pytest.approx(used, abs=0.03)
    assert used >= 0.38
    assert seconds.add() < 0.03, "nothing more is used, nothing is counted again"


def test_cpu_of_children_that_come_and_go_between_samples_is_counted_once(jobs, start_sampler):
    sampler = start_sampler()
    child = f"subprocess.run([sys.executable, '-c', {BURN.format(0.2)!r}])"
    loop = f"for line in sys.stdin:\n    {child}\n    print('done', flush=True)\n"
    loop = f"import subprocess, sys\nprint('ready', flush=True)\n{loop}"
    parent = jobs.start(sys.executable, "-c", loop)
    parent.stdout.readline()
    seconds = Seconds(sampler)
    before = sum(os_times(parent.pid))
    for sampled_alive in (True, False, True):
        parent.stdin.write("\n")
        parent.stdin.flush()
        # Sampled while it burns: what was counted of the child must not be counted again with its parent's children.
        while not select.select([parent.stdout], [], [], 0.03 if sampled_alive else None)[0]:
            seconds.add()
        parent.stdout.readline()
        seconds.add()
    used = sum(os_times(parent.pid)) - before
    assert used > 0.6
    assert seconds.total == pytest.approx(used, abs=0.05)


class Seconds:
    """CPU seconds of all jobs from now on: cores times the sampler's own interval."""

    def __init__(self, sampler) -> None:
        self.sampler = sampler
        self.total = 0.0
        self.sampler.sample()
        self.last = sampler.clock()

    def add(self) -> float:
        """Take a sample; what was used since the one before."""
        jobs = self.sampler.sample()["jobs"]
        now = self.sampler.clock()
        used = sum(job["cpu"] for job in jobs) * (now - self.last)
        self.last = now
        self.total += used
        return used


def os_times(pid: int) -> tuple[float, float]:
    """CPU seconds of a process, and of the children that it waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return (int(fields[11]) + int(fields[12])) / ticks, (int(fields[13]) + int(fields[14])) / ticks


def test_an_exited_process_takes_nothing_away_from_the_others(jobs, start_sampler):
    sampler = start_sampler()
    ends = jobs.python(BURN.format(0.5))
    code = f"{READY}\n{BURN.format(0.2)}print('done', flush=True)\ntime.sleep(100)"
    other = jobs.start(sys.executable, "-c", code)
    other.stdout.readline()
    before = sum(os_times(other.pid))
    seconds = Seconds(sampler)
    ends.kill()
    ends.wait()
    other.stdin.close()
    other.stdout.readline()
    used = sum(os_times(other.pid)) - before
    assert seconds.add() == pytest.approx(used, abs=0.04)
    assert used >= 0.18


@pytest.mark.skipif(not os.access("/proc/sys/kernel/ns_last_pid", os.W_OK), reason="needs to choose a pid (root)")
def test_a_later_process_with_the_same_pid_is_not_the_jobs(jobs, start_sampler):
    sampler = start_sampler()
    first = jobs.python(BURN.format(0.2))
    assert sampler.sample()["jobs"][0]["pids"] == [first.pid]
    first.kill()
    first.wait()

    def reused() -> bool:
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(first.pid - 1))
        return jobs.start_unmarked("sleep", "100").pid == first.pid

    until(reused)
    assert sampler.sample()["jobs"] == []


def test_zombies_are_not_running_processes(jobs, start_sampler):
    zombie = jobs.start("true")
    until(lambda: Path(f"/proc/{zombie.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    assert start_sampler().sample()["jobs"] == []


def test_processes_on_a_gpu_are_named_by_job_and_foreign_ones_by_user(jobs, fake_nvml, start_sampler):
    ours = jobs.python("", job=21, attempt=2)
    foreign = jobs.start_unmarked("sleep", "100")
    gone = subprocess.Popen(["true"])
    gone.wait()
    fake_nvml.show([{"compute": [(ours.pid, 3 << 30), (foreign.pid, -1)], "graphics": [(gone.pid, 10), (ours.pid, 5)]}])
    (gpu,) = start_sampler(fake_nvml.environment).sample()["gpus"]
    by_pid = {process["pid"]: process for process in gpu["processes"]}
    expected = {"pid": ours.pid, "memory": 3 << 30, "type": "compute", "job": 21, "attempt": 2, "foreign": False}
    assert by_pid[ours.pid] == expected | {"name": None, "user": None}
    assert by_pid[foreign.pid]["foreign"] is True
    assert by_pid[foreign.pid]["memory"] is None, "the driver could not tell"
    assert by_pid[foreign.pid]["name"] == "sleep"
    assert by_pid[foreign.pid]["user"]
    assert by_pid[gone.pid]["foreign"] is None, "nothing is known of a process that is not there"
    assert by_pid[gone.pid]["type"] == "graphics"


def test_a_process_without_a_readable_environment_is_not_called_foreign(jobs, fake_nvml, start_sampler):
    # As Ray's workers do: their title is written over their environment.
    wipe = "import ctypes, re; l = open('/proc/self/stat').read().rpartition(')')[2].split()\n"
    wipe += "ctypes.memset(int(l[47]), 0, int(l[48]) - int(l[47]))"
    worker = jobs.python(wipe)
    assert not Path(f"/proc/{worker.pid}/environ").read_bytes().strip(b"\0")
    fake_nvml.show([{"compute": [(worker.pid, 1)]}])
    sampler = start_sampler(fake_nvml.environment)
    assert sampler.sample()["gpus"][0]["processes"][0]["foreign"] is None
    sampler.watch(worker.pid, 4, 1)
    assert sampler.sample()["gpus"][0]["processes"][0]["job"] == 4


def test_the_host_is_told_with_its_busy_cores_memory_and_disk(start_sampler, tmp_path):
    sampler = start_sampler(disk=str(tmp_path))
    assert sampler.sample()["host"]["cpu"] is None
    subprocess.run([sys.executable, "-c", BURN.format(0.3)], check=True)
    host = sampler.sample()["host"]
    assert 0 < host["cpu"] <= host["cpus"] * 1.2
    assert 0 < host["memory_used"] < host["memory_total"]
    room = os.statvfs(tmp_path)
    assert host["disk_free"] == pytest.approx(room.f_bavail * room.f_frsize, rel=0.1)
