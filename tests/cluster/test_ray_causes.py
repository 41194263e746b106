"""Why attempts end, as real ranks on a real cluster tell it: found where the log lies, and told with the end."""

import pytest

pytestmark = pytest.mark.ray

A, B = "127.0.0.10", "127.0.0.11"

ENDS = [
    # what runs, cause, its kind, in words
    ("exit 3", "exit", "3", "exit code 3"),
    ("kill -SEGV $$", "signal", "SIGSEGV", "ended by SIGSEGV"),
    ("echo 'RuntimeError: CUDA out of memory. Tried to allocate 2 GiB'; exit 1", "gpu_oom", None, "out of GPU memory"),
    ("echo 'CUDA error: uncorrectable ECC error encountered'; exit 1", "pattern", "ecc", "uncorrectable ECC"),
    ("no-such-program --now", "start", "command", "command not found"),
    # A real one: Python's own word for it, under a real limit on its address space.
    ("ulimit -v 400000; python -c 'x = bytearray(1 << 40)'", "oom", None, "MemoryError"),
]


def test_an_end_says_its_cause_and_which_rank_on_which_node(live):
    for number in range(0, len(ENDS), 3):  # as many as the node has room for
        jobs = [(live.start(run, A, gpus=0), *said) for run, *said in ENDS[number : number + 3]]
        for job, cause, which, words in jobs:
            data = live.end(job).data
            assert (data["cause"], data.get("which")) == (cause, which)
            assert words in data["cause_detail"]
            assert (data["failed_rank"], data["node"]) == (0, A)


def test_a_setup_that_fails_is_a_start_failure(live):
    data = live.end(live.start("exit 5", A, gpus=0, setup="exit 4")).data
    assert (data["cause"], data["which"], data["exit_code"]) == ("start", "setup", 4)
    data = live.end(live.start("exit 5", A, gpus=0, setup="true")).data
    assert (data["cause"], data["exit_code"]) == ("exit", 5)


def test_the_first_rank_that_fails_is_told_and_not_the_one_that_sees_it_go(live):
    """Rank 0 dies of the loss of rank 1, and could be heard first."""
    run = """
if [ $RANK = 1 ]; then echo 'oops: my own pattern'; exit 9; fi
while kill -0 $(cat {0}/other 2>/dev/null || echo $$) 2>/dev/null; do sleep 0.01; done
echo 'ncclRemoteError: connection closed'; exit 1
"""
    retry = {"rules": [{"on": "log:/my own (pattern|words)/", "do": "retry_elsewhere"}]}
    mark = live.folder / "other"
    run = f"[ $RANK = 1 ] && echo $$ > {mark} && sleep 0.5\n" + run.replace("{0}/other", str(mark))
    run = f"[ $RANK = 0 ] && until [ -s {mark} ]; do sleep 0.01; done\n" + run
    job = live.start(run, A, B, gpus=0, retry=retry)
    data = live.end(job).data
    assert (data["failed_rank"], data["node"], data["exit_code"]) == (1, B, 9)
    assert data["matched"] == [0]


def test_a_pattern_that_takes_for_ever_ends_nothing_but_itself(live):
    retry = {"on": ["log:/(a+)+$/", "failure"]}
    job = live.start(
        "python -c \"print('a' * 900 + 'b')\"; echo no space: No space left on device; exit 2", A, gpus=0, retry=retry
    )
    data = live.end(job).data
    assert (data["exit_code"], data["cause"], data["which"]) == (2, "pattern", "disk_full")
    assert not data.get("matched")
