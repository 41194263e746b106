"""`gpusched queues` as its users type it, and the example of its page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cli_kit import cli  # noqa: F401 - a fixture, found by name

from gpusched.policies.quota import Usage
from gpusched.policies.tree import QueueNode
from gpusched.scheduler.queues import parse_queues
from gpusched.scheduler.queues.model import Preemption, Priority, QueueEntry, QueueFile, QueueLimits
from gpusched.scheduler.queues.writing import entry_of

PAGE = (Path(__file__).parents[2] / "docs" / "queues.md").read_text("utf-8")
(EXAMPLE,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)

SMALL = """queues:
  - name: lab
  - {name: nlp, parent: lab, nominal_quota: 5}
  - {name: chat, parent: lab, nominal_quota: 3}
"""


def test_the_example_of_the_page_does_what_the_page_says():
    tree = parse_queues(EXAMPLE, file="example")
    assert tree.default == "chat"
    assert tree.potential("nlp", "H100") == 12
    assert tree.potential("vision", "H100") == 16
    usage = Usage(tree)
    usage.add("vision", "H100", 16)
    assert usage.over_nominal("vision", "H100") == 8
    assert tree.potential("vision", "A100") == 12


def test_the_page_has_a_row_for_every_key():
    rows = " ".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `"))
    keys = [*QueueEntry.model_fields, "default_queue", *Preemption.model_fields, "running_jobs", "gpus", "min", "max"]
    missing = [key for key in keys if f"{key}`" not in rows and f"`{key}." not in rows]
    assert missing == []
    assert set(QueueFile.model_fields) == {"api_version", "kind", "default_queue", "queues", "topology"}
    assert set(QueueLimits.model_fields) == {"running_jobs", "per_user", "per_job"}
    assert set(Priority.model_fields) == {"min", "max"}


def test_what_a_key_left_out_means_is_what_the_page_says():
    entry = entry_of(QueueNode("a"))
    assert entry == {"name": "a"}, "a queue with nothing but defaults is its name"
    rules = QueueNode("a").preemption
    for key, value in rules._asdict().items():
        assert re.search(rf"`preemption\.{key}` \|.*\| `{value}` \|", PAGE), key


@pytest.fixture
def desk(cli, plane):  # noqa: F811 - the fixture
    """The command line at a control plane, with a file in its folder."""
    (cli.folder / "queues.yaml").write_text(SMALL)
    return cli.at(plane)


def test_a_file_is_compared_applied_listed_and_exported(desk):
    differs = desk("queues", "diff", "queues.yaml", code=1)
    assert differs.stdout == (
        "+ queue lab\n+ queue nlp: parent lab, nominal_quota 5\n+ queue chat: parent lab, nominal_quota 3\n"
    )
    done = desk("queues", "apply", "queues.yaml")
    assert done.stdout.endswith("queues are at version 1\n")
    assert desk("queues", "diff", "queues.yaml").stdout == ""
    assert "Queues:        3 (version 1)\n" in desk("status").stdout
    table = desk("queues", "list").stdout.splitlines()
    assert table[0].split() == ["QUEUE", "WEIGHT", "NOMINAL", "USED", "BORROWED", "RUNNING", "WAITING", "STATE"]
    assert table[2].split() == ["nlp", "1", "5", "0", "-", "0", "0", "-"]
    assert table[2].startswith("  nlp")
    exported = desk("queues", "export").stdout
    assert parse_queues(exported, file="x") == parse_queues(SMALL, file="y")
    assert desk("queues", "diff", "-", stdin=exported).stdout == ""
    assert desk("queues", "export", "--as-written").stdout == SMALL


def test_a_refusal_says_the_line_or_the_jobs_and_what_to_do(desk, plane):
    desk("queues", "apply", "queues.yaml")
    (desk.folder / "bad.yaml").write_text("queues:\n- {name: a, parent: b}\n- {name: b, parent: a, wieght: 2}\n")
    bad = desk("queues", "apply", "bad.yaml", code=4).stderr
    assert "bad.yaml:2:21: queues[0].parent: is a circle: a -> b -> a" in bad
    assert "bad.yaml:3:24: queues[1].wieght: unknown key (did you mean `weight`?)" in bad
    assert "cannot be read: No such file" in desk("queues", "apply", "gone.yaml", code=4).stderr
    plane.submit("sleep 60", queue="nlp")
    (desk.folder / "less.yaml").write_text("queues: [{name: chat}]\n")
    refused = desk("queues", "apply", "less.yaml", code=8).stderr
    assert "queue nlp would be gone: 1 job (1 on GPUs)" in refused
    assert "gpusched ps --queue nlp" in refused
    drained = desk("queues", "apply", "less.yaml", "--drain")
    assert "jobs that lose their queue nlp: 0 waiting, 1 on GPUs" in drained.stderr
    assert "queue nlp is gone; 1 job of it are left" in desk("queues", "list").stderr
    assert "there is no queue 'nlp'" in desk("submit", "--queue", "nlp", "--", "true", code=3).stderr


def test_versions_are_listed_shown_and_rolled_back(desk):
    desk("queues", "apply", "queues.yaml")
    desk("queues", "apply", "-", stdin="queues: [{name: solo, nominal_quota: {H100: 2}, users: {ann: 3}}]")
    shown = desk("queues", "show", "solo").stdout
    assert "Nominal:    H100:2" in shown
    assert "    ann: 3" in shown
    assert desk("queues", "rollback", "1").stdout.endswith("queues are at version 3\n")
    rows = json.loads(desk("queues", "history", "-o", "json").stdout)["versions"]
    assert [(row["version"], row["user"], row["file"], row["note"]) for row in rows] == [
        (3, "ann", "queues.yaml", "rollback to 1"),
        (2, "ann", "<stdin>", ""),
        (1, "ann", "queues.yaml", ""),
    ]


def test_two_files_are_compared_without_a_control_plane(cli):  # noqa: F811 - the fixture
    (cli.folder / "a.yaml").write_text(SMALL)
    (cli.folder / "b.yaml").write_text(SMALL.replace("nominal_quota: 5", "nominal_quota: 6"))
    assert cli("queues", "diff", "a.yaml", "b.yaml", code=1).stdout == "~ queue nlp: nominal_quota.gpus: 5 -> 6\n"
    assert cli("queues", "diff", "a.yaml", "a.yaml").stdout == ""
    found = json.loads(cli("queues", "diff", "a.yaml", "b.yaml", "-o", "json", code=1).stdout)
    assert [(change["queue"], change["old"], change["new"]) for change in found["changes"]] == [("nlp", 5, 6)]
