"""GPU figures, read by nvidia-ml-py from a real shared library whose state the tests turn."""

import json
import os
import subprocess
import sys
import time

import pytest

GIB = 1 << 30


def test_every_gpu_is_told_with_its_figures_in_plain_units(fake_nvml, start_sampler):
    fake_nvml.show(
        [
            {
                "name": "NVIDIA H100 80GB HBM3",
                "uuid": "GPU-aa",
                "utilization": 87,
                "memory_used": 40 * GIB,
                "memory_total": 80 * GIB,
                "power": 412_500,
                "temperature": 61,
            },
            {},
        ]
    )
    sample = start_sampler(fake_nvml.environment).sample(1234.5)
    assert (sample["time"], sample["node"], sample["nvml"]) == (1234.5, "n1", None)
    first, second = sample["gpus"]
    assert first == {
        "index": 0,
        "uuid": "GPU-aa",
        "name": "NVIDIA H100 80GB HBM3",
        "utilization": 0.87,
        "memory_used": 40 * GIB,
        "memory_total": 80 * GIB,
        "power": 412.5,
        "temperature": 61,
        "processes": [],
    }
    assert second["index"] == 1
    assert second["utilization"] == 0.0, "idle is a figure, not a gap"


def test_figures_follow_the_gpus_from_sample_to_sample(fake_nvml, start_sampler):
    sampler = start_sampler(fake_nvml.environment)
    seen = []
    for utilization in (10, 95, 0):
        fake_nvml.show([{"utilization": utilization}])
        seen += [gpu["utilization"] for gpu in sampler.sample()["gpus"]]
    assert seen == [0.1, 0.95, 0.0]


def test_memory_that_the_driver_keeps_for_itself_is_not_used_memory(fake_nvml, start_sampler):
    fake_nvml.show([{"memory_used": 0, "memory_reserved": GIB}])
    assert start_sampler(fake_nvml.environment).sample()["gpus"][0]["memory_used"] == 0


def test_a_node_without_nvml_has_no_gpus_and_says_why(start_sampler):
    sample = start_sampler().sample()
    assert sample["gpus"] == []
    assert "libnvidia-ml.so.1 is not found" in sample["nvml"]
    assert sample["host"]["memory_total"] > 0, "the rest of the sample is there"


@pytest.mark.parametrize(
    ("code", "words"), [(9, "Driver Not Loaded"), (18, "NVML/RM version mismatch"), (999, "Unknown Error")]
)
def test_an_nvml_that_does_not_open_gives_no_gpus_and_its_own_words(fake_nvml, start_sampler, code, words):
    fake_nvml.show(2, init=code)
    sample = start_sampler(fake_nvml.environment).sample()
    assert sample["gpus"] == []
    assert words in sample["nvml"]


def test_a_gpu_that_falls_off_the_bus_keeps_its_name_and_leaves_the_others_alone(fake_nvml, start_sampler):
    sampler = start_sampler(fake_nvml.environment)
    sampler.sample()
    fake_nvml.show([{"utilization": 50}, {"fail": {"all": 15}}, {"utilization": 70}])
    sample = sampler.sample()
    assert [gpu["utilization"] for gpu in sample["gpus"]] == [0.5, None, 0.7]
    lost = sample["gpus"][1]
    assert lost["uuid"] == "GPU-00000000-0000-0000-0000-000000000001"
    assert (lost["memory_used"], lost["power"], lost["temperature"], lost["processes"]) == (None,) * 4
    assert sample["nvml"] == "GPU 1: GPU is lost"


def test_a_figure_that_a_gpu_does_not_have_is_empty_and_its_reason_is_given_once(fake_nvml, start_sampler):
    fake_nvml.show([{"fail": {"power": 3, "utilization": 3}} for _ in range(4)] + [{}])
    sample = start_sampler(fake_nvml.environment).sample()
    assert [gpu["power"] for gpu in sample["gpus"]] == [None, None, None, None, 60.0]
    assert [gpu["utilization"] for gpu in sample["gpus"]] == [None, None, None, None, 0.0]
    assert [gpu["temperature"] for gpu in sample["gpus"]] == [35] * 5
    assert sample["nvml"] == "GPU 0-3: utilization: Not Supported; GPU 0-3: power: Not Supported"


def test_unreadable_process_lists_are_not_empty_lists(fake_nvml, start_sampler):
    fake_nvml.show([{"fail": {"compute": 4}}])
    sample = start_sampler(fake_nvml.environment).sample()
    assert sample["gpus"][0]["processes"] is None
    assert "compute processes: Insufficient Permissions" in sample["nvml"]


def test_the_sampler_outlives_a_driver_that_is_replaced_under_it(fake_nvml, start_sampler):
    sampler = start_sampler(fake_nvml.environment)
    assert sampler.sample()["gpus"][0]["utilization"] == 0.0
    fake_nvml.unload()
    gone = sampler.sample()
    assert [gpu["utilization"] for gpu in gone["gpus"]] == [None, None]
    assert "Driver Not Loaded" in gone["nvml"]
    fake_nvml.show([{"utilization": 33}])
    back = sampler.sample()
    assert [gpu["utilization"] for gpu in back["gpus"]] == [0.33]
    assert back["nvml"] is None


def test_a_driver_that_stays_away_is_asked_for_once_a_minute_and_its_gpus_stay_listed(fake_nvml, start_sampler):
    sampler = start_sampler(fake_nvml.environment)
    fake_nvml.show([{"uuid": "GPU-aa", "utilization": 5}])
    sampler.gpus(0.0)
    fake_nvml.unload()
    sampler.gpus(5.0)
    gpus, why = sampler.gpus(10.0)
    assert [(gpu["uuid"], gpu["utilization"]) for gpu in gpus] == [("GPU-aa", None)]
    assert "Driver Not Loaded" in why
    fake_nvml.show([{"uuid": "GPU-aa", "utilization": 6}])
    assert sampler.gpus(69.0)[0][0]["utilization"] is None
    assert sampler.gpus(71.0)[0][0]["utilization"] == 0.06


def test_a_driver_that_hangs_costs_its_patience_once_and_then_nothing(fake_nvml, start_sampler):
    sampler = start_sampler(fake_nvml.environment, patience=0.3)
    sampler.sample()
    fake_nvml.show(2, delay=30)
    first = sampler.sample()
    assert 0.3 <= first["took"] < 5
    assert [gpu["utilization"] for gpu in first["gpus"]] == [None, None]
    assert "has not answered" in first["nvml"]
    assert sampler.sample()["took"] < 0.3


def test_a_driver_that_was_only_slow_is_believed_again(fake_nvml, start_sampler):
    sampler = start_sampler(fake_nvml.environment, patience=0.2)
    fake_nvml.show([{"utilization": 44}], delay=0.5)
    assert "has not answered" in sampler.sample()["nvml"]
    fake_nvml.show([{"utilization": 44}])
    deadline = time.monotonic() + 30
    while (sample := sampler.sample())["nvml"] is not None:
        assert time.monotonic() < deadline, sample
    assert sample["gpus"][0]["utilization"] == 0.44


RAY = """
import json
from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager as manager
from ray.dashboard.modules.reporter.gpu_providers import NvidiaGpuProvider
provider = NvidiaGpuProvider()
assert provider.is_available() and provider._initialize()
figures = provider.get_gpu_utilization()
print(json.dumps([manager.get_current_node_num_accelerators(), manager.get_current_node_accelerator_type(), figures]))
"""


def test_ray_itself_finds_the_same_gpus_in_the_test_library(fake_nvml):
    fake_nvml.show([{"utilization": 70, "memory_used": 10 * GIB, "compute": [(4242, GIB)]}, {}, {}])
    # As Ray does in a raylet and in its dashboard's agent; no cluster is needed to see what they will see.
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-c", RAY], env=environment | fake_nvml.environment, capture_output=True, text=True, check=True
    )
    count, kind, figures = json.loads(done.stdout.splitlines()[-1])
    assert (count, kind) == (3, "A100")
    assert [gpu["utilization_gpu"] for gpu in figures] == [70, 0, 0]
    assert figures[0]["memory_used"] == 10 * 1024
    assert figures[0]["power_mw"] == 60_000
    assert figures[0]["temperature_c"] == 35
    assert list(figures[0]["processes_pids"]) == ["4242"]
