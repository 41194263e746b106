"""Ray Train scripts run as they are, inside what gpusched reserved for them."""

import sys
import time

import pytest

from gpusched.cluster.ray.train_callback import fit

pytestmark = pytest.mark.ray

A, B, C = "127.0.0.10", "127.0.0.11", "127.0.0.12"

SCRIPT = """
import os
import ray, ray.train, torch, torch.distributed as dist
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

def train():
    context = ray.train.get_context()
    value = torch.ones(1)
    dist.all_reduce(value)
    where = ray.util.get_node_ip_address()
    gpus = ray.get_gpu_ids()
    if os.environ.get("BREAK"):
        with open(os.environ["BREAK"], "a") as file:
            file.write("tried\\n")
        raise RuntimeError("broken on purpose")
    with open(os.path.join(os.environ["OUT"], f"worker-{context.get_world_rank()}"), "a") as file:
        file.write(f"{where} {gpus} {value.item()} {os.environ['GPUSCHED_JOB_ID']}\\n")
    ray.train.report({"sum": value.item()})

trainer = TorchTrainer(
    train,
    scaling_config=ScalingConfig(num_workers=int(os.environ["WORKERS"]), use_gpu=True),
    torch_config=TorchConfig(backend="gloo"),
    run_config=RunConfig(name="run", storage_path=os.environ["OUT"], failure_config=FailureConfig(max_failures=5)),
)
print("result", trainer.fit().metrics)
"""


@pytest.fixture
def live(shared_live):
    return shared_live


def train(live, out, *nodes, workers, gpus, **env):
    variables = {"OUT": str(out), "WORKERS": str(workers), **env}
    line = f'cat > train.py <<"END"\n{SCRIPT}END\n{sys.executable} train.py'
    return live.start(line, *nodes, gpus=gpus, env=variables)


def test_an_unmodified_script_trains_on_the_gangs_nodes_and_gpus(live, tmp_path):
    job = train(live, tmp_path, C, B, workers=3, gpus=2)
    data = live.end(job, within=120).data
    assert data["exit_code"] == 0, live.log(job)
    assert "'sum': 3.0" in live.log(job)
    lines = sorted((tmp_path / f"worker-{rank}").read_text() for rank in range(3))
    nodes = [line.split()[0] for line in lines]
    assert sorted(nodes) == sorted([C, C, B])
    assert len({line.split("]")[0] for line in lines}) == 3
    assert all(line.endswith(f" 3.0 {job.id}\n") for line in lines)
    assert "rank 0 of this job leads" in live.log(job, 1)
    assert live.processes(job) == []
    assert live.groups() == ([], [])


def test_a_script_that_fails_is_not_retried_by_ray_train(live, tmp_path):
    job = train(live, tmp_path, A, workers=1, gpus=1, BREAK=str(tmp_path / "tries"))
    assert live.end(job, within=120).data["exit_code"] == 1
    assert "broken on purpose" in live.log(job)
    assert (tmp_path / "tries").read_text() == "tried\n"
    assert live.groups() == ([], [])


PREEMPTED = """
import os, tempfile, time
import ray, ray.train
from ray.train import Checkpoint, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

def train():
    start = 0
    if found := ray.train.get_checkpoint():
        with found.as_directory() as folder:
            start = int(open(os.path.join(folder, "step")).read())
    print("starts at", start, flush=True)
    step = start
    while step < 5 or not start:
        step += 1
        leaving = ray.train.get_preemption_info() is not None
        open(os.path.join(os.environ["OUT"], "trains"), "w").close()
        if leaving or start:
            with tempfile.TemporaryDirectory() as folder:
                open(os.path.join(folder, "step"), "w").write(str(step))
                rank = ray.train.get_context().get_world_rank()
                ray.train.report({"step": step}, checkpoint=None if rank else Checkpoint.from_directory(folder))
        if leaving:
            return
        time.sleep(0.05)

trainer = TorchTrainer(
    train,
    scaling_config=ScalingConfig(num_workers=2, use_gpu=True),
    torch_config=TorchConfig(backend="gloo"),
    run_config=RunConfig(name="run", storage_path=os.environ["OUT"]),
)
print("result", trainer.fit().metrics)
"""


def test_a_script_that_asks_for_preemption_hears_of_its_own_jobs_saves_and_is_queued_again(live, tmp_path, wait_until):
    line = f'cat > train.py <<"END"\n{PREEMPTED}END\nexec {sys.executable} train.py'
    variables = {"OUT": str(tmp_path), "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1"}
    job = live.start(line, A, B, gpus=1, env=variables, checkpoint={"grace": "60s"})
    wait_until((tmp_path / "trains").exists, within=120)
    live.backend.stop(job, 60.0, time.time())
    ended = live.end(job, within=90).data
    assert ended["exit_code"] == 75, live.log(job)
    assert ended["checkpoint"]["step"] == 1
    assert live.processes(job) == []


def test_workers_fill_the_bundles_in_order_and_share_their_cpus():
    bundles = [{"GPU": 2, "CPU": 3}, {"GPU": 2, "CPU": 3}]
    assert fit(bundles, {"GPU": 1, "CPU": 1}, 3) == ([0, 0, 1], {"GPU": 1, "CPU": 1})
    assert fit(bundles, {"GPU": 1, "CPU": 4}, 4) == ([0, 0, 1, 1], {"GPU": 1, "CPU": 1.5})
    assert fit(bundles, {"GPU": 2}, 2) == ([0, 1], {"GPU": 2, "CPU": 0})


def test_workers_without_gpus_are_spread_evenly():
    assert fit([{"CPU": 1}, {"CPU": 1}], {"CPU": 1}, 3) == ([0, 0, 1], {"CPU": 0.5})


def test_a_script_that_asks_for_more_than_its_job_has_is_told_so():
    with pytest.raises(ValueError, match=r"5 workers with 1 GPU each.*room for 4"):
        fit([{"GPU": 2}, {"GPU": 2}], {"GPU": 1}, 5)
