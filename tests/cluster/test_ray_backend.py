"""Attempts on a real Ray cluster of three nodes: exactly where planned, whole or not at all, and gone at the end."""

import io
import sys
import tarfile

import pytest

pytestmark = pytest.mark.ray

A, B, C = "127.0.0.10", "127.0.0.11", "127.0.0.12"
PRINT_ENV = (
    "echo $RANK/$WORLD_SIZE local=$LOCAL_RANK/$LOCAL_WORLD_SIZE node=$NODE_RANK at=$MASTER_ADDR"
    " gpus=$CUDA_VISIBLE_DEVICES"
)


@pytest.fixture
def live(shared_live):
    return shared_live


def test_nodes_are_reported_under_lasting_names_with_what_they_offer(live):
    node = live.nodes[B]
    assert (node.name, node.address, node.gpus, node.cpu_milli) == (B, B, 2, 4000)
    assert node.memory > 0
    assert not any("node-id" in key for key in node.labels)


def test_a_gang_runs_on_exactly_the_planned_nodes_with_torchruns_variables(live):
    job = live.start(f"{PRINT_ENV}; echo port=$MASTER_PORT", C, A, gpus=2)
    started = live.seen(job, "started").data["ranks"]
    assert [(rank["node"], rank["address"], rank["gpus"]) for rank in started] == [(C, C, [0, 1]), (A, A, [0, 1])]
    assert live.end(job).data["exit_code"] == 0
    first, second = live.log(job, 0, node=C).splitlines(), live.log(job, 1, node=A).splitlines()
    assert first[0] == f"0/2 local=0/1 node=0 at={C} gpus=0,1"
    assert second[0] == f"1/2 local=0/1 node=1 at={C} gpus=0,1"
    assert first[1] == second[1] != "port=0"
    assert live.kinds(job) == ["started", "finished"]


def test_two_pieces_on_one_node_get_gpus_of_their_own(live):
    job = live.start(PRINT_ENV, B, B)
    ranks = live.seen(job, "started").data["ranks"]
    assert sorted(gpu for rank in ranks for gpu in rank["gpus"]) == [0, 1]
    assert live.end(job).data["exit_code"] == 0
    assert f"gpus={ranks[1]['gpus'][0]}" in live.log(job, 1)


def test_jobs_are_told_who_they_are_and_secrets_reach_only_them(live):
    names = "JOB_ID JOB_NAME ATTEMPT QUEUE NUM_NODES NODE_RANK GPUS_PER_NODE NUM_GPUS CHECKPOINT_DIR GRACE_SECONDS"
    run = (
        f"for n in {names}; do v=GPUSCHED_$n; echo $n=${{!v}}; done; "
        "echo $TOKEN $PLAIN $GPUSCHED_END_TIME; echo $RAY_ADDRESS"
    )
    job = live.start(
        run,
        B,
        gpus=0,
        env={"PLAIN": "yes"},
        secrets={"TOKEN": "s3cret"},
        max_duration="1h",
        checkpoint={"dir": "/ckpt", "grace": "7s"},
    )
    assert live.end(job).data["exit_code"] == 0
    lines = live.log(job, node=B).splitlines()
    assert lines[:10] == [
        f"JOB_ID={job.id}",
        "JOB_NAME=test",
        "ATTEMPT=1",
        "QUEUE=default",
        "NUM_NODES=1",
        "NODE_RANK=0",
        "GPUS_PER_NODE=0",
        "NUM_GPUS=0",
        "CHECKPOINT_DIR=/ckpt",
        "GRACE_SECONDS=7",
    ]
    assert lines[10].startswith("s3cret yes 1")
    assert lines[11] == live.cluster.address
    assert "s3cret" not in (live.folder / "state" / "gateway.log").read_text()


def test_a_job_without_gpus_sees_none_and_a_shared_gpu_is_seen_by_both(live):
    none = live.start("echo [$CUDA_VISIBLE_DEVICES]", B, gpus=0)
    halves = [live.start("echo [$CUDA_VISIBLE_DEVICES]; sleep 0.5", C, gpus=0.5) for _ in range(2)]
    for job in (none, *halves):
        assert live.end(job).data["exit_code"] == 0
    assert live.log(none, node=B) == "[]\n"
    assert [live.log(job, node=C) for job in halves] == ["[0]\n", "[0]\n"]


def test_the_workdir_that_was_submitted_is_what_runs_on_every_node(live, tmp_path):
    archive = tmp_path / "work.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        data = b"print('from the snapshot')\n"
        info = tarfile.TarInfo("code/main.py")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    job = live.start(f"{sys.executable} code/main.py", A, C, archive=archive)
    assert live.end(job).data["exit_code"] == 0
    assert [live.log(job, rank) for rank in (0, 1)] == ["from the snapshot\n"] * 2


def test_an_archive_that_leads_out_of_its_folder_is_refused_and_nothing_runs(live, tmp_path):
    archive = tmp_path / "evil.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../../escaped"), io.BytesIO())
    job = live.start("echo never", B, archive=archive)
    data = live.end(job).data
    assert data["exit_code"] == 126
    assert "escaped" in data["message"]
    assert not list(live.folder.rglob("escaped"))


def test_a_gang_that_does_not_fit_as_planned_is_refused_as_a_whole(live):
    holder = live.start("sleep 1000", C, gpus=2)
    live.seen(holder, "started")
    job = live.start("echo never", A, C, gpus=2)
    refused = live.end(job)
    assert refused.kind == "refused"
    assert C in refused.data["message"]
    groups, actors = live.groups()
    assert groups == [live.name(holder)]
    assert actors == [f"{live.name(holder)}:0"]
    live.backend.stop(holder, 0, 0.0)
    live.end(holder)


def test_a_start_on_a_node_that_is_not_there_is_refused(live):
    job = live.start("echo never", "127.9.9.9")
    assert "127.9.9.9" in live.end(job).data["message"]


def test_a_start_that_is_asked_for_twice_runs_once(live):
    job = live.start("echo once; sleep 0.5", B)
    live.backend.start(job, (B,), 0.0)
    live.seen(job, "started")
    live.backend.start(job, (B,), 0.0)
    live.end(job)
    assert live.log(job, node=B) == "once\n"


def test_a_failing_rank_ends_the_whole_gang_at_once(live):
    job = live.start("if [ $RANK = 1 ]; then sleep 0.5; exit 7; fi; sleep 1000", A, B, C)
    data = live.end(job, within=20).data
    assert (data["exit_code"], data["failed_rank"]) == (7, 1)
    assert live.processes(job) == []


def test_a_rank_that_is_done_early_lets_the_others_finish(live):
    job = live.start("[ $RANK = 0 ] || sleep 1; echo done $RANK", A, B)
    assert live.end(job).data["exit_code"] == 0
    assert live.log(job, 1) == "done 1\n"


def test_a_cancel_leaves_not_one_descendant_on_any_node(live):
    nasty = (
        "(setsid bash -c 'trap \"\" TERM; sleep 1000' &); (sleep 1000 & sleep 1000 &) ;"
        " setsid sleep 1000 & trap '' TERM; echo up; while :; do sleep 0.1; done"
    )
    job = live.start(nasty, A, B, C)
    for rank in range(3):
        live.prints(job, "up", rank)
    assert len(live.processes(job)) > 10
    live.backend.stop(job, 0.5, 0.0)
    assert live.end(job).kind == "finished"
    assert live.processes(job) == []
    assert live.groups() == ([], [])


def test_a_cancel_while_it_is_being_placed_ends_it_too(live):
    job = live.start("sleep 1000", A, B)
    live.backend.stop(job, 0.2, 0.0)
    assert live.end(job).kind == "finished"
    assert live.processes(job) == []


def test_stopping_what_does_not_run_reports_that_it_is_finished(live):
    job = live.job("true", A)
    live.backend.stop(job, 1, 0.0)
    assert live.end(job).kind == "finished"


def test_a_torchrun_line_trains_over_two_nodes(live):
    code = (
        "import torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "value = torch.tensor([float(dist.get_rank() + 1)])\n"
        "dist.all_reduce(value)\n"
        "print('sum', value.item(), 'of', dist.get_world_size(), flush=True)\n"
        "dist.barrier()\n"
        "dist.destroy_process_group()\n"
    )
    line = (
        "torchrun --nnodes=$GPUSCHED_NUM_NODES --node-rank=$GPUSCHED_NODE_RANK --nproc-per-node=1"
        " --master-addr=$MASTER_ADDR --master-port=$MASTER_PORT train.py"
    )
    job = live.start(f'cat > train.py <<"END"\n{code}END\n{line}', B, C)
    assert live.end(job, within=90).data["exit_code"] == 0, live.log(job)
    assert [live.log(job, rank).splitlines()[-1] for rank in (0, 1)] == ["sum 3.0 of 2"] * 2


def test_nodes_are_sampled_with_the_jobs_that_run_there(live):
    job = live.start("while :; do :; done", B)
    live.seen(job, "started")
    samples = []

    def found():
        samples.extend(live.backend.samples())
        return any(sample["node"] == B and any(one["job"] == job.id for one in sample["jobs"]) for sample in samples)

    live.wait_until(found)
    live.backend.stop(job, 0, 0.0)
    live.end(job)
    assert {sample["node"] for sample in samples} >= {A, B, C}


def test_a_log_is_read_in_parts_from_either_end(live):
    job = live.start("printf 0123456789", A)
    live.end(job)
    read = live.backend.read_log
    assert read(job.id, 1, 0, 2, 3).result(20) == (b"234", 10)
    assert read(job.id, 1, 0, -4, 10, node=A).result(20) == (b"6789", 10)
