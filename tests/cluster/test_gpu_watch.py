"""GPUs that are broken, as NVIDIA's library tells it: a real one of that name, whose state the tests turn."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpusched.cluster.ray import gpu_watch

LOOP = """
import json, sys, pathlib
sys.path.insert(0, {folder!r})
import gpu_watch
gpu_watch.READ_EVERY, gpu_watch.WAIT, gpu_watch.REOPEN = 0.05, 50, 0.1
watch = gpu_watch.GpuWatch(pathlib.Path({memory!r}), {boot!r})
watch.start()
for line in sys.stdin:
    if line == "forgive\\n":
        watch.forgive()
    print(json.dumps(watch.faults()), flush=True)
"""
UUID = "GPU-00000000-0000-0000-0000-00000000000{}"


class Watch:
    """The watch in a process of its own, as on a node: the file alone in an empty folder."""

    def __init__(self, folder, environment, boot):
        shutil.copy(gpu_watch.__file__, folder / "gpu_watch.py")
        code = LOOP.format(folder=str(folder), memory=str(folder / "memory.json"), boot=boot)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"} | environment,
        )

    def _ask(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return {int(index): why for index, why in json.loads(self.process.stdout.readline()).items()}

    def faults(self):
        return self._ask("faults")

    def forgive(self):
        return self._ask("forgive")

    def close(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start_watch(tmp_path, fake_nvml):
    started = []

    def start(boot="boot-1"):
        started.append(Watch(tmp_path, fake_nvml.environment, boot))
        return started[-1]

    yield start
    for watch in started:
        watch.close()


@pytest.fixture
def begun(start_watch, tmp_path, wait_until):
    """A watch that has looked at every GPU once: it has written what it has seen."""

    def start(boot="boot-1"):
        watch = start_watch(boot)
        wait_until(lambda: boot in (tmp_path / "memory.json").read_text())
        return watch

    (tmp_path / "memory.json").touch()
    return start


def test_gpus_that_are_well_are_not_told(begun):
    watch = begun()
    assert watch.faults() == {}


@pytest.mark.parametrize(("code", "words"), [(15, "gpu is lost"), (16, "gpu requires re"), (6, "not found")])
def test_a_lost_gpu_is_told_alone_and_found_again(fake_nvml, begun, wait_until, code, words):
    watch = begun()
    fake_nvml.show([{}, {"fail": {"all": code}}])
    assert wait_until(watch.faults).keys() == {1}
    assert watch.faults()[1].startswith(f"GPU lost: NVML says {words}")
    fake_nvml.show(2)
    wait_until(lambda: watch.faults() == {})


def test_a_gpu_that_the_driver_does_not_count_any_more_is_lost(fake_nvml, start_watch, begun, wait_until):
    watch = begun()
    fake_nvml.show(1)
    assert list(wait_until(watch.faults)) == [1]
    watch.close()
    again = start_watch()
    assert list(wait_until(again.faults)) == [1], "the count outlives the agent"


@pytest.mark.parametrize(("xid", "fatal"), [(79, True), (48, True), (95, True), (119, True), (13, False), (31, False)])
def test_a_fatal_xid_is_told_and_that_of_a_program_is_not(fake_nvml, begun, wait_until, xid, fatal):
    watch = begun()
    # The one behind it, on the other GPU, shows that the first was heard.
    fake_nvml.show([{"xid": [xid]}, {"xid": [62]}])
    wait_until(lambda: 1 in watch.faults())
    assert (0 in watch.faults()) is fatal
    if fatal:
        assert watch.faults()[0].startswith(f"Xid {xid} at 20")


def test_an_xid_is_remembered_until_it_is_forgiven_or_the_machine_boots(fake_nvml, start_watch, begun, wait_until):
    watch = begun()
    fake_nvml.show([{"xid": [79]}, {}])
    wait_until(watch.faults)
    watch.close()
    again = start_watch()
    assert "has fallen off the bus" in wait_until(again.faults)[0]
    again.close()
    watch = begun("boot-2")
    assert watch.faults() == {}
    fake_nvml.show([{"xid": [79, 94]}, {}])
    assert "contained memory error" in wait_until(watch.faults)[0]
    assert watch.forgive() == {}


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"ecc_volatile": 2}, "since the driver was loaded"),
        ({"ecc_aggregate": 8}, "new uncorrectable"),
        ({"pages_pending": 1}, "pages wait for a reset"),
        ({"rows_pending": 1}, "rows wait for a reset"),
        ({"rows_failed": 1}, "could not be remapped"),
    ],
)
def test_errors_of_the_memory_are_told_until_they_are_noted(fake_nvml, begun, wait_until, words, facts):
    fake_nvml.show([{}, {"ecc_aggregate": 7}])
    watch = begun()
    assert watch.faults() == {}, "what it has counted in the years before us is its past"
    fake_nvml.show([{}, {"ecc_aggregate": 7, **facts}])
    assert words in wait_until(watch.faults)[1]
    assert watch.forgive() == {}
    fake_nvml.show([{}, {"ecc_aggregate": 7, **{name: value + 1 for name, value in facts.items()}}])
    assert words in wait_until(watch.faults)[1], "a further one counts"


def test_a_gpu_without_counters_and_events_is_well(fake_nvml, begun, wait_until):
    fake_nvml.show([{"fail": {"ecc": 3, "pages": 3, "rows": 3, "xid": 3}}] * 2)
    watch = begun()
    assert watch.faults() == {}
    fake_nvml.show([{"fail": {"all": 15}}, {}])
    wait_until(lambda: 0 in watch.faults())


def test_a_driver_that_is_replaced_is_watched_again(fake_nvml, begun, wait_until):
    watch = begun()
    fake_nvml.unload()
    watch.faults()
    fake_nvml.show([{}, {"rows_pending": 1}])
    wait_until(lambda: 1 in watch.faults())


def test_a_file_that_somebody_spoiled_is_begun_anew(start_watch, wait_until, tmp_path):
    memory = tmp_path / "memory.json"
    memory.write_text("not json")
    start_watch()
    wait_until(lambda: memory.read_text().startswith("{"))


def test_the_xids_that_take_a_gpu_away_are_not_those_of_programs():
    assert not {8, 11, 13, 31, 43, 45, 68, 69, 109} & gpu_watch.FATAL.keys()
    assert {48, 62, 63, 64, 74, 79, 94, 95, 119, 120} <= gpu_watch.FATAL.keys()
    assert Path(gpu_watch.__file__).read_text().count("import pynvml") == 1, "a node without GPUs need not have it"
