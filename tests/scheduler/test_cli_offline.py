"""The command line without a control plane: help, mistakes, simulations, configuration."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from cli_kit import cli  # noqa: F401 - a fixture, found by name

from gpusched.scheduler.cli.menu import ALIASES, MENU
from gpusched.scheduler.cli.reference import text as reference
from gpusched.scheduler.cli.root import root

ROOT = Path(__file__).parents[2]
HEAVY = (
    "ray",
    "torch",
    "sqlalchemy",
    "pydantic",
    "pydantic_core",
    "aiohttp",
    "rich",
    "numpy",
    "alembic",
    "psutil",
    "yaml",
)


def imported(arguments, *, code=0):
    """The modules that a command line has loaded at its end."""
    program = (
        "import sys\n"
        "from gpusched.scheduler.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as end: print('\\n#', end.code, *sorted(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / ".src")},
        check=True,
    )
    said, *modules = done.stderr.rpartition("\n# ")[2].split()
    assert said == str(code), done.stderr
    return {name.partition(".")[0] for name in modules}, set(modules)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["version"], ["ps", "--help"], ["submit", "--help"], ["simulate", "--help"]]
)
def test_help_loads_nothing_heavy(arguments):
    tops, _ = imported(arguments)
    assert tops.isdisjoint(HEAVY), tops & set(HEAVY)


@pytest.mark.parametrize("group", [[], ["queues"], ["policy"], ["bench"], ["trace"], ["bound"], ["report"], ["config"]])
def test_no_line_of_a_list_of_commands_is_cut_off(cli, group):  # noqa: F811 - the fixture
    lines = cli(*group, "--help").stdout.splitlines()
    assert [line for line in lines if line.endswith("...") and not line.startswith("Usage:")] == []


def test_the_top_level_help_imports_no_verb():
    _, modules = imported(["--help"])
    verbs = {f"gpusched.scheduler.cli.{entry.module}" for entry in MENU.values()}
    assert modules.isdisjoint(verbs)


def test_a_simulation_loads_neither_ray_nor_a_database():
    tops, _ = imported(["simulate", "-o", "json"])
    assert tops.isdisjoint({"ray", "torch", "sqlalchemy", "pydantic", "aiohttp", "numpy", "yaml", "rich"})


def test_help_answers_at_once(cli):  # noqa: F811 - the fixture
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        cli("--help")
        times.append(time.perf_counter() - begun)
    assert min(times) < 0.25, times


def walk(command, path=()):
    yield path, command
    if isinstance(command, click.Group):
        ctx = click.Context(command, info_name=" ".join(path))
        for name in command.list_commands(ctx):
            yield from walk(command.get_command(ctx, name), (*path, name))


COMMANDS = dict(walk(root))


def test_the_menu_says_of_each_verb_what_its_own_help_says():
    for name, entry in MENU.items():
        assert COMMANDS[name,].get_short_help_str(200) == entry.line, name


def test_every_option_of_every_verb_is_explained():
    for path, command in COMMANDS.items():
        assert command.help, path
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert (parameter.help or "").endswith("."), (path, parameter.opts)


def test_one_letter_means_one_thing_everywhere():
    meanings = {"-f": {"--file", "--follow"}, "-o": {"--output"}, "-w": {"--watch"}, "-q": {"--quiet"}, "-y": {"--yes"},
                "-n": {"--name"}, "-l": {"--selector"}, "-v": {"--verbose"}, "-h": {"--help"}}  # fmt: skip
    for path, command in COMMANDS.items():
        for parameter in command.params:
            for letter in set(parameter.opts) & set(meanings):
                assert meanings[letter] & set(parameter.opts), (path, parameter.opts)


def test_the_documentation_is_that_of_the_commands():
    assert (ROOT / "docs" / "cli.md").read_text("utf-8") == reference(), "run the line at the top of cli/reference.py"
    for path in COMMANDS:
        assert " ".join(("gpusched", *path)) in reference()


@pytest.mark.parametrize(("alias", "verb"), ALIASES.items())
def test_an_alias_is_its_verb(cli, alias, verb):  # noqa: F811 - the fixture
    assert cli(alias, "--help").stdout == cli(verb, "--help").stdout


# Mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (["sbmit"], 2, "there is no command 'sbmit'; did you mean `submit`", "see `gpusched --help`"),
        (["ps", "--stat", "X"], 2, "no such option", "see `gpusched ps --help`"),
        (["ps", "--state", "DONE"], 2, "DONE is no state", ""),
        (["ps", "-o", "pdf"], 2, "'pdf' is not one of", ""),
        (["ps", "--since", "yesterday"], 2, "no time", ""),
        (["ps", "-l", "team"], 2, "not KEY=VALUE", ""),
        (["submit"], 2, "give a job file, or a command", ""),
        (["submit", "--"], 2, "no command after `--`", ""),
        (["submit", "a.yaml", "--", "true"], 2, "a file or a command, not both", ""),
        (["submit", "gone.yaml"], 4, "gone.yaml: cannot be read: No such file", "nothing was queued"),
        (["submit", "."], 4, "Is a directory", "nothing was queued"),
        (["submit", "train.py"], 4, "gpusched run -- python train.py", ""),
        (["submit", "env"], 4, "gpusched run -- env", ""),
        (["submit", "--gpus", "-3", "--", "true"], 4, "--gpus: must be from 0", ""),
        (["submit", "--gpus", "1e99", "--", "true"], 4, "--gpus:", ""),
        (["submit", "--time", "60", "--", "true"], 4, "--time: 60 has no unit", ""),
        (["submit", "--memory", "64", "--", "true"], 4, "--memory: 64 has no unit", ""),
        (["submit", "--secret", "NOT_SET_ANYWHERE", "--", "true"], 4, "not set in your environment", ""),
        (["submit", "--env", "NOT_SET_ANYWHERE", "--", "true"], 2, "not set in your environment", ""),
        (["logs"], 2, "missing argument", ""),
        (["logs", "1", "--rank", "x"], 2, "'x' is no rank", ""),
        (["cancel"], 2, "name a job", ""),
        (["cancel", "1", "-l", "a=b"], 2, "not both", ""),
        (["wait", "1", "--timeout", "5"], 2, "5 has no unit", ""),
        (["ps"], 7, "no control plane is running", "gpusched up"),
        (["cancel", "1"], 7, "no control plane is running", "gpusched up"),
        (["top"], 7, "no control plane is running", "gpusched up"),
        (["export", "x.csv"], 7, "no control plane is running", "gpusched up"),
        (["down"], 3, "no control plane runs in", ""),
        (["--address", "http://127.0.0.1:1", "ps"], 7, "does not answer: Connection refused", ""),
        (["ps", "--address", "nonsense"], 4, "--address: cannot be 'nonsense'", ""),
        (["up", "--policy", "nice"], 3, "no policy named 'nice'", "fifo"),
        (["policy", "show", "nice"], 3, "no policy named 'nice'", ""),
        (["simulate", "gone.csv", "--nodes", "2x8"], 4, "gone.csv: no such file", ""),
        (["simulate", "gone.csv"], 2, "say on which cluster", ""),
        (["simulate", "--nodes", "0x8"], 4, "0x8 is no cluster", ""),
        (["simulate", "--nodes", "2x8", "--cluster", "c.yaml"], 2, "not both", ""),
        (["simulate", "--policy", "gone.py:X"], 3, "could not be loaded", ""),
        (["simulate", "--start-up", "5"], 2, "5 has no unit", ""),
        (["simulate", "-o", "csv", "--html", "gone/report.html"], 1, "cannot be written", ""),
        (["trace", "generate", "-", "--jobs", "0"], 4, "--jobs is 0", ""),
        (["trace", "generate", "gone/x.csv"], 4, "cannot be written", ""),
        (["trace", "info", "."], 4, "is a folder", ""),
        (["completion", "tcsh"], 2, "'tcsh' is not one of", ""),
    ],
)
def test_a_mistake_gets_one_clear_message_and_its_exit_code(cli, arguments, code, message, hint):  # noqa: F811 - a table
    done = cli(*arguments, code=code)
    first, *rest = done.stderr.splitlines()
    assert first.startswith("error: ")
    assert message in done.stderr
    assert hint in "\n".join(rest)


def test_with_json_an_error_is_an_object_on_standard_error(cli):  # noqa: F811 - the fixture
    (cli.folder / "bad.yaml").write_text("run: x\nnumnodes: 2\npriority: 400\n")
    done = cli("submit", "bad.yaml", "-o", "json", code=4)
    assert done.stdout == ""
    error = json.loads(done.stderr)["error"]
    assert error["code"] == "invalid_spec"
    assert [(p["line"], p["column"], p["key"]) for p in error["problems"]] == [(2, 1, "numnodes"), (3, 11, "priority")]
    assert json.loads(cli("ps", "-ojson", code=7).stderr)["error"]["code"] == "unreachable"
    assert json.loads(cli("ps", code=7, GPUSCHED_OUTPUT="json").stderr)["error"]["hint"]
    assert json.loads(cli("ps", "--wrong", "--output=json", code=2).stderr)["error"]["code"] == "usage"


def test_several_faults_in_several_files_are_reported_at_once(cli):  # noqa: F811 - the fixture
    (cli.folder / "a.yaml").write_text("run: x\nnumnodes: 2\n")
    (cli.folder / "b.yaml").write_text("run: x\n---\nrun: y\npriority: high\n")
    said = cli("submit", "a.yaml", "b.yaml", "c.yaml", code=4).stderr
    assert re.search(r"a\.yaml:2:1: numnodes: unknown key \(did you mean `num_nodes`\?\)", said)
    assert "b.yaml:4:11: priority" in said
    assert "c.yaml: cannot be read" in said


def test_a_yaml_bomb_is_refused_in_a_moment(cli):  # noqa: F811 - the fixture
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (cli.folder / "bomb.yaml").write_text("\n".join(lines))
    (cli.folder / "big.yaml").write_bytes(b"run: x\n" + b"# " + b"x" * (10 << 20))
    begun = time.perf_counter()
    assert "bomb.yaml" in cli("submit", "bomb.yaml", code=4).stderr
    assert "larger than 1 MiB" in cli("submit", "big.yaml", code=4).stderr
    assert time.perf_counter() - begun < 10


def test_a_home_that_cannot_be_written_is_said_so(cli):  # noqa: F811 - the fixture
    (cli.folder / "file").write_text("")
    said = cli("submit", "--", "true", code=1, GPUSCHED_HOME=str(cli.folder / "file" / "state")).stderr
    assert "cannot make the state directory" in said
    assert "GPUSCHED_HOME" in said


def test_a_broken_configuration_file_stops_every_verb_that_needs_it_and_no_other(cli):  # noqa: F811 - the fixture
    (cli.folder / ".gpusched.yaml").write_text("quueue: x\n")
    assert "did you mean `queue`" in cli("ps", code=4).stderr
    assert "did you mean `queue`" in cli("config", "validate", code=4).stderr
    cli("--help")
    cli("version")


def test_whoever_stops_reading_ends_the_command_quietly(cli):  # noqa: F811 - the fixture
    command = " ".join(cli.command("trace", "generate", "-", "--jobs", "200000"))
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -2; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        env=cli.environment,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "141"
    assert done.stderr == ""


def test_a_full_disk_is_said_to_be_one(cli):  # noqa: F811 - the fixture
    command = " ".join(cli.command("trace", "generate", "-", "--jobs", "2000"))
    done = subprocess.run(
        ["bash", "-c", f"{command} > /dev/full"], capture_output=True, text=True, env=cli.environment, check=False
    )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_with_130_and_no_traceback(cli):  # noqa: F811 - the fixture
    process = cli.start("trace", "generate", "-", "--jobs", "10000000")
    process.stdout.readline()
    process.send_signal(2)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in said


@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US.ISO-8859-1"])
def test_names_that_the_locale_does_not_have_are_printed_as_escapes(cli, locale):  # noqa: F811 - the fixture
    (cli.folder / ".gpusched.yaml").write_text("queue: süß-日本\n", encoding="utf-8")
    done = subprocess.run(
        cli.command("config", "view", "--columns", "value"),
        capture_output=True,
        cwd=cli.folder,
        env={**cli.environment, "LC_ALL": locale, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        check=True,
    )
    assert b"s\\xfc\\xdf-\\u65e5\\u672c" in done.stdout


def test_a_current_folder_that_is_gone_is_no_crash(cli):  # noqa: F811 - the fixture
    gone = cli.folder / "gone"
    gone.mkdir()
    words = ["python", *cli.command("version")[1:]]
    program = f"import os; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); os.execv({sys.executable!r}, {words!r})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=cli.environment, check=False
    )
    assert done.returncode == 0, done.stderr


# Simulations ------------------------------------------------------------------------------------------------------


def test_the_shipped_example_compares_three_policies(cli):  # noqa: F811 - the fixture
    done = cli("simulate")
    head = done.stdout.splitlines()[1]
    assert head.split()[1::2] == ["fifo", "binpack", "gang"]
    for row in ("JCT mean", "JCT p99", "Queueing delay p90", "makespan", "allocation ratio", "preemptions", "jobs/s"):
        assert row in done.stdout
    assert "\x1b" not in done.stdout


def test_a_simulation_gives_the_same_bytes_each_time(cli):  # noqa: F811 - the fixture
    for form in ("json", "csv"):
        first = cli("simulate", "-o", form, "--html", "a.html").stdout
        assert cli("simulate", "-o", form, "--html", "b.html").stdout == first
        assert (cli.folder / "a.html").read_bytes() == (cli.folder / "b.html").read_bytes()
    runs = json.loads(cli("simulate", "-o", "json").stdout)["runs"]
    assert [run["policy"] for run in runs] == ["fifo", "binpack", "gang"]
    rows = list(csv.DictReader(io.StringIO(cli("simulate", "-o", "csv", "--policy", "gang").stdout)))
    assert [row["policy"] for row in rows] == ["gang"]


def test_a_trace_goes_through_generate_convert_info_and_simulate(cli):  # noqa: F811 - the fixture
    cli("trace", "generate", "t.csv.gz", "--jobs", "50", "--seed", "3", "--gpus", "16")
    cli("trace", "convert", "t.csv.gz", "t.jsonl", "--style", "jsonl")
    facts = [json.loads(cli("trace", "info", name, "-o", "json").stdout) for name in ("t.csv.gz", "t.jsonl")]
    assert facts[0]["jobs"] == 50
    assert {key: facts[0][key] for key in facts[0] if key != "trace"} == {
        key: facts[1][key] for key in facts[1] if key != "trace"
    }
    piped = cli("trace", "generate", "-", "--jobs", "50", "--seed", "3", "--gpus", "16").stdout
    results = [
        cli("simulate", name, "--nodes", "2x8", "-o", "csv", "--policy", "fifo", stdin=piped).stdout
        for name in ("t.csv.gz", "-")
    ]
    assert results[0].partition(",2x8,")[2] == results[1].partition(",2x8,")[2] != ""
    assert "Jobs:" in cli("trace", "info", "t.jsonl").stdout


def test_a_trace_is_not_overwritten_with_itself(cli):  # noqa: F811 - the fixture
    cli("trace", "generate", "t.csv", "--jobs", "5")
    before = (cli.folder / "t.csv").read_bytes()
    assert "is the trace itself" in cli("trace", "convert", "t.csv", "t.csv", code=4).stderr
    assert (cli.folder / "t.csv").read_bytes() == before


def test_what_was_skipped_or_rejected_is_said(cli):  # noqa: F811 - the fixture
    (cli.folder / "t.csv").write_text("submitted,duration,gpus\n0,10,4\n1,10,64\n2,5,1\n")
    said = cli("simulate", "t.csv", "--nodes", "1x8", "--policy", "fifo").stdout
    assert "1 job was rejected, no node could hold it" in said
    assert "Infeasible: needs 64 GPU" in said


def test_a_policy_of_ones_own_file_decides(cli):  # noqa: F811 - the fixture
    (cli.folder / "mine.py").write_text(
        "from gpusched.policies.catalog import fifo\n"
        "def Mine():\n"
        "    policy = fifo()\n"
        "    policy.name = 'mine'\n"
        "    return policy\n"
    )
    runs = json.loads(cli("simulate", "--policy", "fifo", "--policy", "mine.py:Mine", "-o", "json").stdout)["runs"]
    assert [run["policy"] for run in runs] == ["fifo", "mine"]
    assert runs[0]["jct"] == runs[1]["jct"]


BROKEN_POLICIES = """
from gpusched.jobs.job import Piece
from gpusched.policies.catalog import fifo

class Raises(type(fifo())):
    def __init__(self):
        vars(self).update(vars(fifo()))
        self.name = "mine"
    def place(self, shape, pool, nodes):
        raise ValueError("boom")

class Nothing(Raises):
    def place(self, shape, pool, nodes):
        return [Piece(0, shape.gpus)]
    def plan(self, now, queue, pool):
        return None

class Exits(Raises):
    def place(self, shape, pool, nodes):
        raise SystemExit(0)
"""


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("Raises", "policy mine/1 failed: ValueError: boom (broken.py, line 10)"),
        ("Nothing", "policy mine/1 failed: AttributeError"),
        ("Exits", "policy mine/1 failed: SystemExit: 0 (broken.py, line 20)"),
    ],
)
def test_what_goes_wrong_in_a_policy_of_ones_own_is_not_blamed_on_gpusched(cli, policy, said):  # noqa: F811 - the fixture
    (cli.folder / "broken.py").write_text(BROKEN_POLICIES)
    done = cli("simulate", "--policy", f"broken.py:{policy}", code=1)
    assert said in done.stderr
    assert "fault of gpusched" not in done.stderr


def test_a_fault_in_a_trace_names_its_row(cli):  # noqa: F811 - the fixture
    (cli.folder / "t.csv").write_text("submitted,duration,gpus\n0,10,1\n5,-3,1\n")
    assert "t.csv, row 3" in cli("simulate", "t.csv", "--nodes", "1x8", code=4).stderr


# The rest ---------------------------------------------------------------------------------------------------------


def test_the_schema_is_the_one_that_is_shipped(cli):  # noqa: F811 - the fixture
    assert json.loads(cli("schema").stdout) == json.loads((ROOT / "jobs" / "job.schema.json").read_text())


def test_policies_are_listed_and_shown_with_their_rules(cli):  # noqa: F811 - the fixture
    rows = json.loads(cli("policy", "list", "-o", "json").stdout)["policies"]
    assert [row["name"] for row in rows][:3] == ["fifo", "binpack", "gang"]
    assert "earmarks the nodes" in cli("policy", "show", "gang").stdout


def test_the_configuration_is_shown_with_its_origin_and_secrets_masked(cli):  # noqa: F811 - the fixture
    (cli.folder / ".gpusched.yaml").write_text("queue: research\n")
    text = cli("config", "view", "--show-origin", GPUSCHED_TOKEN="hush").stdout  # noqa: S106 - nobody's
    assert re.search(r"queue +research +\S*\.gpusched\.yaml:1\n", text)
    assert re.search(r"token +\*\*\* +GPUSCHED_TOKEN\n", text)
    assert "hush" not in text
    said = cli("config", "validate", GPUSCHED_QUEU="x")
    assert "did you mean `queue`" in said.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(cli, shell):  # noqa: F811 - the fixture
    assert "_GPUSCHED_COMPLETE" in cli("completion", shell).stdout


def completed(cli, *words):  # noqa: F811 - the fixture
    done = cli(
        code=0,
        COMP_WORDS=" ".join(("gpusched", *words)),
        COMP_CWORD=str(len(words)),
        _GPUSCHED_COMPLETE="bash_complete",
    )
    return [line.partition(",")[2] for line in done.stdout.split()]


def test_the_shell_completes_verbs_options_and_policies(cli):  # noqa: F811 - the fixture
    assert completed(cli, "des") == ["describe"]
    assert "--state" in completed(cli, "ps", "--st")
    assert completed(cli, "policy", "show", "ga") == ["gang"]
    assert completed(cli, "describe", "") == [], "nothing runs, and a shell shows no errors"


def test_progress_of_a_long_replay_is_drawn_on_a_terminal(cli):  # noqa: F811 - the fixture
    cli("trace", "generate", "t.csv", "--jobs", "120000", "--gpus", "16", "--load", "0.5")
    master, slave = pty.openpty()
    process = subprocess.Popen(
        cli.command("simulate", "t.csv", "--nodes", "2x8", "--policy", "fifo", "-o", "csv"),
        stdout=subprocess.PIPE,
        stderr=slave,
        cwd=cli.folder,
        env={**cli.environment, "TERM": "xterm"},
    )
    os.close(slave)
    drawn = b""
    try:
        while data := os.read(master, 4096):
            drawn += data
    except OSError:
        pass  # the other end was closed
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"fifo" in drawn
    assert b"/120000" in drawn
