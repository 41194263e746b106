"""Names, labels, reasons and output come from strangers: wherever they are shown, they are text and nothing else."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import select
import subprocess
import tarfile
from dataclasses import replace

import pytest
import yaml
from cli_kit import cli  # noqa: F401 - a fixture, found by name
from live_kit import until

from gpusched.jobs.errors import SpecError
from gpusched.jobs.spec import spec_from_document
from gpusched.scheduler.output import Column, Listing, Style, render, safe
from gpusched.scheduler.report import summarize
from gpusched.scheduler.report.page import page
from gpusched.scheduler.terminal import TerminalFilter

NASTY = {
    "script": "</script><script>alert(1)</script>",
    "attribute": "\" onmouseover=alert(1) x='",
    "image": "<img src=x onerror=alert(1)>",
    "svg": "<svg/onload=alert(1)>",
    "comment": "--><b>",
    "template": "${7*7}{{7*7}}$title",
    "colour": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;owned\x07",
    "clipboard": "\x1b]52;c;ZWNobw==\x07",
    "link": "\x1b]8;;http://evil\x1b\\x\x1b]8;;\x1b\\",
    "erase": "\x1b[2J\x1b[1A\x1b[2K",
    "answer": "\x1b[6n\x9b6n\x90q",
    "lines": "a\nb\r\nc\rd\u2028e\u2029f\x85g",
    "turned": "abc\u202etxt.exe\u2066x\u2069\u061c\u200f",
    "hidden": "\ufeffa\x00b\x08\x7f",
    "formula": "=cmd|' /C calc'!A0",
    "formula 2": "@SUM(1+1)",
    "formula 3": "+1-1",
    "formula 4": "\t=1",
    "sql": "'; DROP TABLE jobs; --",
    "sql 2": '" OR "1"="1',
    "path": "../../../../etc/passwd",
    "shell": "$(touch /tmp/owned)`id`;&|",
    "yaml": "a: b\n- c: !!python/object/apply:os.system ['x']",
    "header": "x\r\nSet-Cookie: a=b",
    "surrogate": "\ud800\udfff",
    "long": "a" * 3000,
    "wide": "漢字" * 50,
}
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def rows():
    return [{"name": text, "note": text, "tags": {text: text}, "list": [text]} for text in NASTY.values()]


def listing():
    columns = [
        Column("name", lambda row: row["name"], flexible=True),
        Column("note", lambda row: row["note"], colour=lambda _: "red"),
        Column("tags", lambda row: row["tags"]),
        Column("list", lambda row: row["list"]),
    ]
    return Listing("rows", columns, rows())


# The command line -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["table", "wide", "name"])
@pytest.mark.parametrize("width", [None, 60])
def test_no_table_steers_a_terminal_and_every_row_is_one_line(form, width):
    text = render(listing(), Style(form, width=width))
    assert not STEERS.search(text)
    assert len(text.splitlines()) == len(NASTY) + (form != "name")


def test_only_our_own_colours_reach_a_terminal():
    text = render(listing(), Style("table", colour=True))
    assert set(re.findall("\x1b[^m]*m?", text)) == {"\x1b[1m", "\x1b[31m", "\x1b[0m"}


def test_machine_forms_give_back_exactly_what_went_in():
    for form, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        good = [row for row in rows() if "\ud800" not in row["name"]]
        found = read(render(Listing("rows", listing().columns, good), Style(form)))
        assert [row["name"] for row in found["rows"]] == [row["name"] for row in good]


def test_no_cell_of_a_csv_is_a_formula_and_the_rows_stay_rows():
    good = [row for row in rows() if "\ud800" not in row["name"]]
    text = render(Listing("rows", listing().columns, good), Style("csv"))
    found = list(csv.reader(io.StringIO(text, newline="")))
    assert len(found) == len(good) + 1
    assert all(cell[:1] not in {"=", "+", "-", "@", "\t", "\r"} for row in found for cell in row)


@pytest.mark.parametrize("name", NASTY)
def test_an_error_shows_words_of_strangers_as_text(name):
    shown = safe(NASTY[name])
    assert not STEERS.search(shown)
    assert "\n" not in shown


# A job's name, labels and queue ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["name", "queue"])
@pytest.mark.parametrize("name", NASTY)
def test_a_name_or_queue_is_a_plain_word_or_refused(key, name):
    try:
        spec = spec_from_document({"run": "true", key: NASTY[name]})
    except SpecError as error:
        said = safe(error.message)
    else:
        said = ""
    assert not STEERS.search(said)
    if said:
        return
    assert re.fullmatch(r"[\w.:/@ +-]{1,253}", getattr(spec, key)), getattr(spec, key)


def test_strangers_words_pass_through_the_database_and_every_answer_as_they_are(plane):
    notes = {
        f"n{number}": text for number, text in enumerate(NASTY.values()) if "\ud800" not in text and "\0" not in text
    }
    made = []
    for text in notes.values():
        try:
            spec = spec_from_document({"run": "true", "annotations": {"note": text}})
        except SpecError:
            continue
        reply = plane.post("/v1/jobs", {"jobs": [{"spec": spec.to_store(), "source": text}], "hold": True})
        assert reply.status == 201, reply.body
        made.append((reply.json["jobs"][0]["id"], text))
    assert made
    for job, text in made:
        view = plane.job(job)
        assert view["source"] == text
        assert plane.get(f"/v1/jobs/{job}/events").status == 200
    assert len(plane.get("/v1/jobs").json["jobs"]) == len(made)
    for text in NASTY.values():
        body = json.dumps({"user": text}).encode()
        assert plane.post("/v1/jobs/1/hold", body).status < 500
        reply = plane.post("/v1/nodes/n1/cordon", json.dumps({"reason": text}).encode())
        assert reply.status in {200, 400}, reply.body


def test_a_job_that_another_would_hide_behind_a_quote_is_not_found(plane):
    plane.submit("true", flags={"hold": True})
    for text in ("' OR 1=1 --", "%", "_", "1 OR 1=1", "*"):
        from urllib.parse import quote  # noqa: PLC0415 - only here

        assert plane.get(f"/v1/jobs/{quote(text, safe='')}").status == 404
        assert plane.get(f"/v1/jobs?all=1&name={quote(text)}").json["jobs"] == []
        assert plane.get(f"/v1/jobs?all=1&user={quote(text)}").json["jobs"] == []


# The pages ------------------------------------------------------------------------------------------------------------


def test_no_name_becomes_markup_of_a_page(make_run):
    run = replace(make_run(60), policy=NASTY["script"])
    for job, text in zip(run.jobs, NASTY.values(), strict=False):
        job.name = job.user = job.queue = text
    text = page([run], [summarize(run)])
    for needle in ("<script>alert", "<img src=x", "<svg/onload", "--><b>"):
        assert needle not in text
    assert '" onmouseover' not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert text.count("</script>") == text.count("<script")


# A job's output -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NASTY if name != "colour"])
def test_output_on_a_terminal_keeps_its_colours_and_steers_nothing(name):
    cleaner = TerminalFilter()
    text = f"\x1b[1;32mgreen\x1b[0m {NASTY[name]} 5%\r6%\tx\b"
    shown = "".join(cleaner.clean(letter) for letter in text) + cleaner.finish()
    assert shown.startswith("\x1b[1;32mgreen\x1b[0m ")
    assert shown.endswith("5%\r6%\tx\b\x1b[0m")
    assert not re.search("[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u061c\u202e\u2066]", shown)
    assert set(re.findall("\x1b(?:\\[[0-9;:]*m)?", shown)) <= {"\x1b[1;32m", "\x1b[0m"}


def test_logs_are_raw_in_a_pipe_and_clean_on_a_terminal(plane, cli):  # noqa: F811 - the fixture
    cli.at(plane)
    job = plane.submit(r"printf '\033]0;owned\007\033[31mred\033[0m\n'")["id"]
    plane.wait(job)
    assert cli("logs", str(job)).stdout == "\x1b]0;owned\x07\x1b[31mred\x1b[0m\n"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        cli.command("logs", str(job)), stdout=theirs, stderr=theirs, cwd=cli.folder, env=cli.environment
    )
    process.wait(60)
    os.close(theirs)
    said = b""
    while select.select([ours], [], [], 0.2)[0]:
        try:
            said += os.read(ours, 4096)
        except OSError:
            break
    os.close(ours)
    assert b"\x1b[31mred\x1b[0m" in said
    assert b"\\x1b]0;owned\\x07" in said
    assert b"\x1b]" not in said


def test_every_listing_of_a_job_with_odd_words_is_harmless(plane, cli):  # noqa: F811 - the fixture
    cli.at(plane)
    spec = spec_from_document({"run": "printf 'x\\n'; exit 3", "env": {"A": NASTY["title"]}})
    source = "run: x\n# " + NASTY["title"]
    job = plane.post("/v1/jobs", {"jobs": [{"spec": spec.to_store(), "source": source}]}).json["jobs"][0]["id"]
    until(lambda: plane.job(job)["state"] == "FAILED")
    plane.post("/v1/nodes/n1/cordon", {"reason": NASTY["erase"] + NASTY["turned"]})
    for words in (
        ["ps", "-a", "-A"],
        ["describe", str(job)],
        ["explain", str(job)],
        ["nodes"],
        ["report", "usage"],
    ):
        done = cli(*words)
        assert not STEERS.search(done.stdout.replace("\n", "")), words
    assert cli("describe", str(job), "-o", "json").returncode == 0


# Workdirs -------------------------------------------------------------------------------------------------------------


def packed(*members: tarfile.TarInfo, content: bytes = b"") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for member in members:
            if member.isreg():
                member.size = member.size or len(content)
                tar.addfile(member, io.BytesIO(content.ljust(member.size, b"\0")))
            else:
                tar.addfile(member)
    return file.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


@pytest.mark.parametrize(
    "members",
    [
        [member("../outside")],
        [member("a/../../outside")],
        [member("link", tarfile.SYMTYPE, "/etc"), member("link/x")],
        [member("link", tarfile.SYMTYPE, "../.."), member("link/x")],
        [member("link", tarfile.LNKTYPE, "../../etc/passwd")],
        [member("device", tarfile.CHRTYPE)],
        [member("pipe", tarfile.FIFOTYPE)],
    ],
    ids=str,
)
def test_a_workdir_that_leads_out_of_its_folder_is_not_unpacked(members, tmp_path):
    unpack = pytest.importorskip("gpusched.cluster.ray.runner").unpack
    folder = tmp_path / "in" / "work"
    folder.mkdir(parents=True)
    with pytest.raises(tarfile.TarError):
        unpack(packed(*members), folder)
    assert sorted(path.name for path in tmp_path.rglob("*")) in (["in", "work"], ["in", "link", "work"])


def test_a_workdir_that_swells_is_not_unpacked(tmp_path, monkeypatch):
    runner = pytest.importorskip("gpusched.cluster.ray.runner")
    monkeypatch.setattr(runner, "MOST_UNPACKED", 1 << 20)
    monkeypatch.setattr(runner, "MOST_MEMBERS", 100)
    with pytest.raises(tarfile.TarError, match="more than 1 MiB"):
        runner.unpack(packed(member("a", size=1 << 19), member("b", size=1 << 20)), tmp_path)
    with pytest.raises(tarfile.TarError, match="more than 100"):
        runner.unpack(packed(*[member(f"f{number}", size=1) for number in range(200)]), tmp_path)
