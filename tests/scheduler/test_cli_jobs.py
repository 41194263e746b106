"""The command line against a control plane that runs jobs as processes of this machine."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import time

import pytest
from cli_kit import cli  # noqa: F401 - a fixture, found by name
from live_kit import until

from gpusched.cluster.backend import Node


@pytest.fixture
def at(cli, plane):  # noqa: F811 - the fixture
    """The command line, pointed at a plane of 2 nodes with 4 GPUs each."""
    return cli.at(plane)


def job_of(at, ref="@"):
    return json.loads(at("describe", ref, "-o", "json").stdout)["jobs"][0]


def gate(tmp_path, name="gate"):
    """A command that waits for a file, and the file."""
    return f"until [ -e {tmp_path / name} ]; do sleep 0.05; done", tmp_path / name


# Submit -----------------------------------------------------------------------------------------------------------


def test_submit_says_the_id_and_what_to_type_next(at):
    said = at("submit", "--gpus", "1", "-n", "first", "--", "true").stdout
    assert re.fullmatch(
        r"job 1 \(first\) is queued[^\n]*\n"
        r"  gpusched logs -f 1 +follow its output\n"
        r"  gpusched explain 1 +why it waits, and until when\n"
        r"  gpusched cancel 1 +take it back\n",
        said,
    )
    assert at("submit", "-q", "--", "true").stdout == "2\n"
    assert at("submit", "--parsable", "--", "true").stdout == "3\n"
    assert json.loads(at("submit", "-o", "json", "--", "true").stdout)["jobs"][0]["id"] == 4


def test_a_job_that_waits_is_told_its_position_and_reason(at, tmp_path):
    command, opened = gate(tmp_path)
    at("submit", "-q", "-N", "2", "--gpus", "4", "--", command)
    at("wait", "@", "--for", "running")
    assert "is queued: position 1; needs 2x4 GPUs; " in at("submit", "-N", "2", "--gpus", "4", "--", "true").stdout
    opened.touch()


def test_options_slurms_aliases_and_files_make_the_job(at):
    slurm = "-J a -p night -N 2 --gpus-per-node H100:2 -t 1-00:00:00 --mem 2GB --queue-anyway"
    ours = "-e LR=0.1 --label zone=a --annotation ticket=1 --retries 2"
    at("submit", *slurm.split(), *ours.split(), "--", "echo", "a b")
    spec = job_of(at)["spec"]
    assert (spec["name"], spec["queue"], spec["num_nodes"], spec["max_duration"]) == ("a", "night", 2, "1d")
    assert spec["resources"] == {"accelerators": "H100:2", "cpus": 1, "memory": "2GB"}
    assert (spec["run"], spec["env"], spec["labels"]) == ("echo 'a b'", {"LR": "0.1"}, {"zone": "a"})
    assert (spec["retry"]["limit"], spec["user"]) == (2, "ann")
    (at.folder / "job.yaml").write_text("name: f\nrun: echo x\nqueue: files\n---\nrun: 'true'\n")
    assert at("submit", "-q", "job.yaml", "--priority", "80", GPUSCHED_QUEUE="mine").stdout == "2\n3\n"
    found = [job_of(at, ref)["spec"] for ref in ("2", "3")]
    assert [(spec["name"], spec["queue"], spec["priority"]) for spec in found] == [
        ("f", "files", 80),
        ("job", "mine", 80),
    ]


def test_a_script_with_directives_is_a_job_from_a_file_and_from_a_pipe(at):
    text = "#!/bin/bash\n#GPUSCHED name: scripted\n#GPUSCHED resources.accelerators: 2\necho ran\n"
    (at.folder / "job.sh").write_text(text)
    assert at("submit", "-q", "job.sh").stdout == "1\n"
    assert at("submit", "-q", "-", stdin=text).stdout == "2\n"
    assert at("submit", "-q", "-f", "-", stdin="run: echo piped\n").stdout == "3\n"
    assert [job_of(at, ref)["gpus"] for ref in ("1", "2", "3")] == [2.0, 2.0, 0.0]


def test_several_documents_are_queued_all_or_none(at):
    (at.folder / "job.yaml").write_text("run: 'true'\n---\nrun: 'true'\nresources: {accelerators: 99}\n")
    said = at("submit", "job.yaml", code=5).stderr
    assert "nothing was queued" in said
    assert at("ps", "-a", "-q").stdout == ""
    assert at("submit", "-q", "--queue-anyway", "job.yaml").stdout == "1\n2\n"


def test_a_dry_run_says_what_would_become_of_it_and_queues_nothing(at):
    done = at("submit", "--dry-run", "--gpus", "4", "--", "true")
    assert done.stdout.startswith("# would start now on n")
    assert "apiVersion: gpusched/v1" in done.stdout
    assert "# never fits this cluster: " in at("submit", "--test-only", "--gpus", "9", "--", "true", code=5).stdout
    at("submit", "-q", "-N", "2", "--gpus", "4", "--", "sleep 600")
    at("wait", "@", "--for", "running")
    done = at("submit", "--dry-run", "--gpus", "4", "--", "true", code=10)
    assert done.stdout.startswith("# would wait: needs 4 GPUs")
    verdicts = json.loads(at("submit", "--dry-run", "-o", "json", "--", "true").stdout)
    assert verdicts["schema_version"] == 1
    assert verdicts["verdicts"][0]["verdict"] == "start"
    (at.folder / "resolved.yaml").write_text(
        at("submit", "--dry-run", "-o", "yaml", "--gpus", "4", "--", "true", code=10).stdout
    )
    at("submit", "-q", "resolved.yaml")
    assert len(at("ps", "-a", "-q").stdout.split()) == 2


def test_a_command_takes_the_folder_of_the_file_that_it_names(at, plane):
    (at.folder / "train.py").write_text("print('code')")
    said = at("submit", "-q", "--", "python", "train.py").stderr
    assert "because of train.py" in said
    assert len(list((plane.home / "snapshots").iterdir())) == 1
    assert job_of(at)["spec"]["workdir"] == "."
    at("submit", "-q", "--no-workdir", "--", "python", "train.py")
    assert "workdir" not in job_of(at)["spec"]
    said = at("submit", "--workdir", "gone", "--", "true", code=4).stderr
    assert "workdir gone does not exist" in said


def test_a_secret_goes_to_the_job_and_is_shown_nowhere(at):
    check = 'test "$TOKEN" = "$(echo hush | sed s/$/-hush/)"'
    at("submit", "--wait", "--secret", "TOKEN", "--", check, TOKEN="hush-hush")  # noqa: S106 - nobody's
    assert "hush-hush" not in at("describe", "@").stdout + at("describe", "@", "-o", "json").stdout
    assert "'***'" in at("describe", "@").stdout or '"***"' in at("describe", "@").stdout


def test_wait_and_follow_exit_with_the_jobs_code(at):
    at("submit", "--wait", "--", "true")
    assert "job 2 (exit) failed with exit code 7" in at("submit", "--wait", "--", "exit 7", code=7).stderr
    done = at("submit", "--follow", "--", "echo said; exit 3", code=3)
    assert done.stdout.endswith("said\n")


# Run --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("exit 42", 42), ("bash -c 'kill -9 $$'", 137)])
def test_run_exits_with_the_jobs_own_code(at, command, code):
    done = at("run", "--", command, code=code)
    assert done.stdout == ""
    assert "job 1 (" in done.stderr


def test_run_prints_the_output_as_it_is_and_nothing_else_on_standard_output(at):
    done = at("run", "--", "printf 'a\\nü\\n'; printf 'no newline'")
    assert done.stdout == "a\nü\nno newline"


def test_lines_of_a_gang_carry_their_rank(at):
    done = at("run", "-N", "2", "--gpus", "1", "--", "echo one; echo two; printf rest")
    assert sorted(done.stdout.splitlines()) == sorted(
        f"[{rank}] {line}" for rank in (0, 1) for line in ("one", "two", "rest")
    )


def test_run_is_never_silent_for_more_than_five_seconds(at, tmp_path):
    command, opened = gate(tmp_path)
    at("submit", "-q", "-N", "2", "--gpus", "4", "--", command)
    process = at.start("run", "--gpus", "1", "-n", "second", "--", "sleep 10; echo done")
    said, silences, last, begun = "", [], time.monotonic(), time.monotonic()
    while process.poll() is None or said.count("\n") == 0:
        ready, _, _ = select.select([process.stderr], [], [], 0.1)
        if ready:
            line = process.stderr.readline()
            if line:
                said += line
                silences.append(time.monotonic() - last)
                last = time.monotonic()
        if time.monotonic() - begun > 9:
            opened.touch()
        assert time.monotonic() - begun < 60
    assert max(silences) < 5.5, said
    assert "position 1" in said
    assert "running: no output" in said
    assert process.wait(10) == 0


def test_ctrl_c_leaves_the_job_running_and_says_so(at, plane):
    process = at.start("run", "--", "echo begun; sleep 600")
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "job 1 goes on: `gpusched logs -f 1`" in said
    assert plane.job(1)["state"] == "RUNNING"


def test_run_outlives_a_restart_of_the_control_plane(cli, plane_in, tmp_path):  # noqa: F811 - the fixture
    def publish(plane):
        cli.home.mkdir(exist_ok=True)
        state = {"url": plane.server.url, "token": plane.server.token, "pid": os.getpid()}
        (cli.home / "control-plane.json").write_text(json.dumps(state))

    first = plane_in("home")
    publish(first)
    command, opened = gate(tmp_path)
    number = cli(
        "submit",
        "-q",
        "--",
        f"echo before; {command}; echo after",
        GPUSCHED_ADDRESS=first.server.url,
        GPUSCHED_TOKEN=first.server.token,
    ).stdout.strip()
    process = cli.start("logs", "-f", number)
    assert process.stdout.readline() == "before\n"
    first.close(jobs_too=False)
    said = process.stderr.readline()
    while "does not answer" not in said:
        said = process.stderr.readline()
        assert said, "it gave up"
    publish(plane_in("home"))
    opened.touch()
    out, said = process.communicate(timeout=60)
    assert (out, process.returncode) == ("after\n", 0), said


def test_a_job_that_is_preempted_is_followed_into_its_next_attempt(at, tmp_path):
    command, opened = gate(tmp_path)
    process = at.start("run", "-n", "moved", "--", f"echo attempt; {command}")
    assert process.stdout.readline() == "attempt\n"
    at("requeue", "moved")
    assert process.stdout.readline() == "attempt\n"
    opened.touch()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "attempt 2 begins" in said


# Look -------------------------------------------------------------------------------------------------------------


def test_ps_lists_mine_that_have_not_ended_unless_asked_otherwise(at):
    at("submit", "-q", "-n", "long", "--gpus", "2", "--", "sleep 600")
    at("submit", "-q", "-n", "theirs", "--user", "bob", "--", "sleep 600")
    at("submit", "-q", "-n", "short", "--wait", "--", "true")
    at("wait", "long", "theirs", "--for", "running")

    def names(*words):
        return at("ps", "-o", "name", *words).stdout.split()

    assert names() == ["long"]
    assert names("-A") == ["long", "theirs"]
    assert names("-a") == ["long", "short"]
    assert names("-u", "bob") == ["theirs"]
    assert names("-A", "-a", "--state", "succeeded") == ["short"]
    assert names("-A", "--name", "theirs") == ["theirs"]
    assert names("--queue", "other") == []
    assert at("ps", "--queue", "other").stderr == "no unfinished jobs of ann\n"
    assert names("-a", "--limit", "1") == ["short"]
    assert names("-a", "--since", "1h") == ["long", "short"]
    assert names("-a", "--since", "2030-01-01") == []
    text = at("ps").stdout
    assert re.match(r"ID +NAME +USER +QUEUE +PRI +GPUS +STATE +REASON/NODES +WAIT/ELAPSED +UTIL +ETA\n", text)
    assert re.search(r" 1 +long +ann +default +50 +2 +RUNNING +n1 +\d+s +- +-\n", text)


def test_ps_estimates_starts_from_what_the_others_promised(at):
    at("submit", "-q", "-N", "2", "--gpus", "4", "--time", "2h", "--", "sleep 600")
    at("wait", "@", "--for", "running")
    at("submit", "-q", "-n", "next", "--gpus", "1", "--", "true")
    line = at("ps", "--columns", "name,eta").stdout.splitlines()[-1]
    assert re.fullmatch(r"next +in 1h5\dm", line)


def test_explain_gives_every_reason_with_its_numbers_and_what_would_help(at):
    at("submit", "-q", "--gpus", "3", "--", "sleep 600")
    at("submit", "-q", "--gpus", "3", "--", "sleep 600")
    at("wait", "1", "2", "--for", "running")
    at("submit", "-q", "-n", "big", "--gpus", "2", "--", "true")
    text = at("explain", "big").stdout
    assert text.startswith("job 3 (big): QUEUED, position 1\n  1. Fragmented: needs 2 GPUs; free 2 in pieces 1+1")
    assert "what would help:\n  1 GPU: would start now" in text
    found = json.loads(at("why", "big", "-o", "json").stdout)
    assert found["explanations"][0]["reasons"][0]["token"] == "Fragmented"  # noqa: S105 - a reason
    assert "RUNNING on n1" in at("explain", "1").stdout


def test_describe_shows_attempts_spec_and_events(at):
    at("submit", "--wait", "-n", "d", "--gpus", "1", "--", "exit 3", code=3)
    text = at("describe", "d").stdout
    for line in (
        r"Job: +1 \(\w{26}\)",
        r"State: +FAILED, exit code 3",
        r"Attempt 1: ",
        r"  rank 0: n1, GPU 0, pid \d+, log /",
        r"  run: exit 3",
        r"  [-0-9]+ [:0-9]+  submitted",
        r"  [-0-9]+ [:0-9]+  started \(attempt 1\)",
    ):
        assert re.search(f"^{line}", text, re.MULTILINE), (line, text)


def test_logs_are_read_after_the_end_by_rank_and_by_tail(at):
    at("submit", "--wait", "-N", "2", "--gpus", "1", "-n", "out", "--", "seq 5 | sed s/^/r$RANK-/")
    assert at("logs", "out", "--rank", "1").stdout.split() == [f"r1-{n}" for n in range(1, 6)]
    assert at("logs", "out", "--rank", "0", "--tail", "2").stdout.split() == ["r0-4", "r0-5"]
    assert sorted(at("logs", "out").stdout.splitlines()) == [f"[{r}] r{r}-{n}" for r in (0, 1) for n in range(1, 6)]
    assert "succeeded" in at("logs", "-f", "out").stderr
    assert at("logs", "out", "--rank", "9", code=3).stderr.startswith("error: ")
    assert at("logs", "out", "--attempt", "2", code=3).stderr.startswith("error: ")


def test_logs_of_a_job_that_never_started_say_so(at):
    at("submit", "--hold", "-n", "later", "--", "true")
    said = at("logs", "later")
    assert (said.stdout, said.stderr) == ("", "job 1 (later) is HELD and has not started: no output\n")


def test_jobs_are_meant_by_id_ulid_name_and_at(at):
    for name in ("one", "two", "three"):
        at("submit", "-q", "-n", name, "--", "sleep 600")
    at("submit", "-q", "--user", "bob", "-n", "theirs", "--", "sleep 600")
    uid = job_of(at, "2")["uid"]
    assert [job_of(at, ref)["name"] for ref in ("1", uid, "two", "@", "@~2")] == ["one", "two", "two", "three", "one"]
    at("describe", "nobody", code=3)
    at("submit", "-q", "-n", "one", "--", "sleep 600")
    assert re.search("give an id: (1, 5|5, 1)", at("cancel", "one", code=8).stderr)


def test_nodes_top_status_and_usage_show_the_cluster(at):
    at("submit", "-q", "-n", "held", "--gpus", "3", "--", "sleep 600")
    at("wait", "@", "--for", "running")
    text = at("nodes").stdout
    assert re.search(r"n1 +up +H100 +4 +1 +- +15/16 +63? ?\S* GiB +1 held \(3\)", text) or "1 held (3)" in text
    assert at("nodes", "-q").stdout == "n1\nn2\n"
    assert json.loads(at("nodes", "-o", "json").stdout)["nodes"][0]["free"] == 1
    text = at("top").stdout
    assert "GPUs [####......] 3/8 allocated, not measured   1 RUNNING" in text
    assert re.search(r"n1 +up +H100 +\[########\.\.\] 3/4 +- +-", text)
    assert json.loads(at("top", "-o", "json").stdout)["gpus"] == {"total": 8, "allocated": 3.0, "used": None}
    assert re.search(r"Cluster: +2 nodes, 8 GPUs, 5 free", at("status").stdout)
    at("cancel", "held")
    at("wait", "held", code=None)
    rows = json.loads(at("report", "usage", "--by", "user", "-o", "json").stdout)
    assert (rows["schema_version"], rows["by"], rows["rows"][0]["key"]) == (1, "user", "ann")
    assert rows["rows"][0]["gpu_hours_used"] is None
    assert (
        at("report", "usage", "--by", "gpu-type", "-o", "csv", "--columns", "gpu_type,used").stdout
        == "gpu_type,used\nH100,\n"
    )


# Change -----------------------------------------------------------------------------------------------------------


def test_hold_release_cancel_and_requeue_say_what_became_of_the_job(at):
    at("submit", "-q", "-n", "j", "--hold", "--gpus", "1", "--", "sleep 600")
    assert "is held" in at("submit", "--hold", "-n", "k", "--", "true").stdout
    assert at("hold", "j").stdout == "job 1 (j) is held\n"
    assert at("release", "j").stdout.startswith("job 1 (j) is released")
    at("wait", "j", "--for", "running")
    assert "is being stopped, with its grace; then it waits in line again" in at("requeue", "j").stdout
    at("wait", "j", "--for", "running")
    assert at("cancel", "j").stdout == "job 1 (j) is being stopped: its processes have their grace to end\n"
    assert at("wait", "j", code=None).returncode in {1, 143}
    assert at("cancel", "k").stdout == "job 2 (k) is cancelled\n"
    assert at("cancel", "k", code=8).stderr.startswith("error: ")
    assert at("release", "j", code=8).stderr.startswith("error: ")


def test_one_job_that_fails_does_not_keep_the_others_from_it(at):
    ids = (
        at("submit", "-q", "--hold", "--", "true").stdout.split()
        + at("submit", "-q", "--hold", "--", "true").stdout.split()
    )
    done = at("cancel", ids[0], "77", "88", ids[1], code=3)
    assert done.stdout.count("is cancelled") == 2
    assert "'77'" in done.stderr
    assert "'88'" in done.stderr


def test_wait_runs_out_with_124_and_is_met_by_running(at):
    at("submit", "-q", "--", "sleep 600")
    at("wait", "@", "--for", "running", "--timeout", "30s")
    begun = time.monotonic()
    assert "is still RUNNING" in at("wait", "@", "--timeout", "1s", code=124).stderr
    assert time.monotonic() - begun < 5


def test_a_cordoned_node_takes_no_work_until_it_is_resumed(at):
    assert at("cordon", "n1", "--reason", "fan is loud").stdout == "node n1 is cordoned\n"
    until(lambda: "cordoned: fan is loud" in at("nodes").stdout)
    at("submit", "--wait", "-q", "--gpus", "1", "--", "true")
    assert job_of(at)["nodes"] == ["n2"]
    at("resume", "n1")
    until(lambda: '"up"' in at("nodes", "-o", "json").stdout)
    assert at("cordon", "n9", code=3).stderr.startswith("error: there is no node 'n9'")


# Watch, export, completion ----------------------------------------------------------------------------------------


def test_watch_with_json_prints_one_event_a_line(at):
    at("submit", "-q", "-n", "w", "--hold", "--", "true")
    process = at.start("ps", "-w", "-o", "json")
    kinds: list[str] = []
    until(lambda: at("hold", "w") and at("release", "w") and _read(process, kinds), within=60)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert "released" in kinds


def _read(process, kinds):
    while select.select([process.stdout], [], [], 0.5)[0]:
        kinds.append(json.loads(process.stdout.readline())["kind"])
    return "released" in kinds


def on_terminal(at, *words, until_seen, keys=b""):
    """Run on a terminal until it drew something; what it drew by then."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        at.command(*words),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=at.folder,
        env={**at.environment, "TERM": "xterm", "COLUMNS": "100"},
        start_new_session=True,
    )
    os.close(slave)
    drawn, end = b"", time.monotonic() + 30
    os.write(master, keys)
    try:
        while until_seen not in drawn:
            assert time.monotonic() < end, drawn
            if select.select([master], [], [], 0.1)[0]:
                drawn += os.read(master, 4096)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            while os.read(master, 4096):
                pass
        except OSError:
            pass  # the other end was closed
        os.close(master)
        process.wait(30)
    return drawn, process.returncode


def test_on_a_terminal_what_is_waited_for_is_one_line_that_is_redrawn(at):
    drawn, code = on_terminal(
        at,
        "run",
        "-N",
        "2",
        "--gpus",
        "3",
        "-n",
        "t",
        "--",
        "echo $RANK; sleep 600",
        until_seen=b"running: no output (6s)",
    )
    assert code == 130
    assert b"[0] 0\r\n" in drawn
    assert b"\r\x1b[K" in drawn


def test_on_a_terminal_top_and_ps_are_drawn_again_in_colour(at):
    at("submit", "-q", "-n", "t", "--gpus", "1", "--", "sleep 600")
    at("wait", "t", "--for", "running")
    drawn, code = on_terminal(at, "ps", "-w", "0.2", until_seen=b"\x1b[H" + b"\x1b[1mID")
    assert (code, drawn.count(b"\x1b[32mRUNNING\x1b[0m") > 0) == (130, True)
    at.environment["NO_COLOR"] = "1"
    drawn, _ = on_terminal(at, "top", "--interval", "0.2", until_seen=b"\x1b[J\x1b[H")
    assert b"RUNNING" in drawn
    assert b"\x1b[32m" not in drawn


def test_cancel_by_label_asks_on_a_terminal(at, plane):
    for _ in range(2):
        plane.submit("sleep 600", labels={"sweep": "a"}, flags={"hold": True, "queue_anyway": True}, user="ann")
    drawn, code = on_terminal(at, "cancel", "-l", "sweep=a", until_seen=b"[y/N]", keys=b"")
    assert b"cancel 2 jobs: 1, 2?" in drawn
    assert {job["state"] for job in plane.get("/v1/jobs").json["jobs"]} == {"HELD"}
    assert code != 0
    assert at("cancel", "-l", "sweep=a", "--yes").stdout.count("is cancelled") == 2
    assert "no job of ann" in at("cancel", "-l", "sweep=b", code=3).stderr


def test_the_export_of_the_journal_replays(at):
    for _ in range(3):
        at("submit", "-q", "--wait", "--gpus", "1", "--", "sleep 0.1")
    at("export", "history.jsonl.gz")
    runs = json.loads(at("simulate", "history.jsonl.gz", "--nodes", "1x8", "-o", "json", "--policy", "fifo").stdout)[
        "runs"
    ]
    assert runs[0]["finished"] == 3
    piped = at("export").stdout
    assert json.loads(at("trace", "info", "-", "-o", "json", stdin=piped).stdout)["jobs"] == 3


def test_the_shell_completes_ids_names_and_nodes(at):
    at("submit", "-q", "-n", "comp", "--", "sleep 600")

    def completed(*words):
        done = at(
            COMP_WORDS=" ".join(("gpusched", *words)), COMP_CWORD=str(len(words)), _GPUSCHED_COMPLETE="bash_complete"
        )
        return [line.partition(",")[2] for line in done.stdout.split()]

    assert completed("logs", "co") == ["comp"]
    assert completed("cancel", "1") == ["1"]
    assert completed("cordon", "n") == ["n1", "n2"]


def test_names_from_strangers_reach_no_terminal_as_they_are(cli, plane_in):  # noqa: F811 - the fixture
    at = cli.at(plane_in(nodes=(Node("n\x1b[2J1", 4, "H100", cpu_milli=16_000, memory=1 << 36),)))
    at("submit", "-q", "--wait", "--gpus", "1", "--", "true")
    for words in (("nodes",), ("ps", "-a", "-o", "wide"), ("top",), ("describe", "@")):
        assert "\x1b" not in at(*words).stdout
    assert "n\\x1b[2J1" in at("nodes").stdout


def test_without_the_token_a_write_is_not_allowed(at):
    assert at("submit", "--", "true", code=6, GPUSCHED_TOKEN="wrong").stderr.startswith("error: ")  # noqa: S106 - nobody's
