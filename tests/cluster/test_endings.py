"""What the tail of a log says of an end: as a process of its own, as it runs on a node."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpusched.cluster.ray import endings
from gpusched.jobs.causes import PATTERNS, STARTS, Cause, end_of
from gpusched.jobs.events import Kind

PROGRAM = Path(endings.__file__)


def look(tmp_path, text, **request):
    log = tmp_path / "output.log"
    log.write_bytes(text if isinstance(text, bytes) else text.encode())
    asked = {"log": str(log), "exit_code": 1, "signal": None, **request}
    done = subprocess.run(
        [sys.executable, "-I", "-S", PROGRAM],
        input=json.dumps(asked).encode(), capture_output=True, check=False, timeout=20,
    )  # fmt: skip
    found = {}
    for line in done.stdout.splitlines():
        found.update(json.loads(line))
    return found


SAID = [
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB", {}, "gpu_oom", ""),
    ("jaxlib: RESOURCE_EXHAUSTED: Out of memory while trying to allocate", {}, "gpu_oom", ""),
    ("MemoryError", {}, "oom", ""),
    ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory", {}, "oom", ""),
    ("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.", {}, "pattern", "xid"),
    ("RuntimeError: CUDA error: uncorrectable ECC error encountered", {}, "pattern", "ecc"),
    ("RuntimeError: No CUDA GPUs; cudaErrorDevicesUnavailable", {}, "pattern", "gpu_lost"),
    ("torch.distributed.DistBackendError: NCCL error in: x.cpp:1", {}, "pattern", "nccl"),
    ("RuntimeError: CUDA error: an illegal memory access was encountered", {}, "pattern", "cuda"),
    ("OSError: [Errno 28] No space left on device", {}, "pattern", "disk_full"),
    ("OSError: [Errno 5] Input/output error", {}, "pattern", "io"),
    ("RuntimeError: unable to open shared memory object </torch_1> in read-write mode", {}, "pattern", "shm"),
    ("ConnectionResetError: [Errno 104] Connection reset by peer", {}, "pattern", "network"),
    ("bash: line 1: trian: command not found", {"exit_code": 127}, "start", "command"),
    ("python: can't open file '/w/x.py': [Errno 2] No such file or directory", {"exit_code": 2}, "exit", "2"),
    ("whatever", {"setting_up": True}, "start", "setup"),
    ("whatever", {"message": "cannot start the command: No space left on device", "exit_code": 127}, "start", "node"),
    ("whatever", {"exit_code": 139, "signal": 11}, "signal", "SIGSEGV"),
    ("whatever", {"exit_code": 139}, "signal", "SIGSEGV"),
    ("whatever", {"exit_code": 137, "signal": 9}, "signal", "SIGKILL"),
    ("ValueError: wrong", {"exit_code": 3}, "exit", "3"),
    ("", {"exit_code": 3}, "exit", "3"),
]


@pytest.mark.parametrize(("text", "request_", "cause", "which"), SAID)
def test_a_log_says_why(tmp_path, text, request_, cause, which):
    found = look(tmp_path, f"step 1\n{text}\n", **request_)
    assert (found["cause"], found["which"]) == (cause, which)
    assert found["cause_detail"]


def test_a_kill_with_a_counter_of_the_kernels_behind_it_is_out_of_memory(tmp_path):
    """The counters of this machine are real; what they were at the start is set one lower."""
    now = endings.oom_kills()
    before = {"cgroup": now["cgroup"], "machine": now["machine"] - 1}
    for text, code, number in (("", 137, 9), ("", 137, None), ("torchrun: exitcode  : -9 (pid: 7)", 1, None)):
        found = look(tmp_path, text, exit_code=code, signal=number, kills=before)
        assert found["cause"] == "oom"
        assert "the kernel killed 1 process on this machine meanwhile" in found["cause_detail"]
    assert look(tmp_path, "", exit_code=137, signal=9, kills=now)["cause"] == "signal"
    assert look(tmp_path, "", exit_code=1, kills=before)["cause"] == "exit", "nothing of it was killed"


def test_only_the_tail_counts_and_long_lines_are_cut(tmp_path):
    noise = b"x" * 100 + b"\n"
    early = b"No space left on device\n" + noise * 700
    assert look(tmp_path, early)["cause"] == "exit"
    assert look(tmp_path, noise * 700 + b"No space left on device\n")["which"] == "disk_full"
    assert look(tmp_path, b"y" * 2000 + b"No space left on device")["cause"] == "exit"
    assert look(tmp_path, b"\xff\xfe\x00NCCL WARN \x1b[31m\n")["which"] == "nccl"


def test_patterns_of_the_user_are_told_by_their_place(tmp_path):
    patterns = ["never", "lost (link|switch)", "^step \\d+$"]
    assert look(tmp_path, "step 12\nlost link 7\n", patterns=patterns)["matched"] == [1, 2]


def test_a_pattern_that_takes_for_ever_costs_seconds_and_the_cause_is_told_all_the_same(tmp_path):
    begun = time.monotonic()
    found = look(tmp_path, "NCCL WARN x\n" + "a" * 900 + "b\n", patterns=["NCCL", "(a+)+$", "WARN"])
    assert time.monotonic() - begun < endings.WITHIN + 3
    assert (found["which"], found["matched"]) == ("nccl", [0])


def test_names_are_those_that_rules_may_use():
    assert {name for name, _ in endings.PATTERNS} == set(PATTERNS)
    for text, request, cause, which in SAID:
        told = {"exit_code": 1, **request}
        found = endings.built_in({"signal": None, **told}, [text])
        assert found["cause"] in set(Cause)
        assert which in {*PATTERNS, *STARTS} or cause in {"oom", "gpu_oom", "exit", "signal"}
        end = end_of(Kind.FINISHED, {**told, **found})
        assert end.cause == (f"{cause}:{which}" if which else cause)
        assert end.detail == found["cause_detail"]
