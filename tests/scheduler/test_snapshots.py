"""Workdirs are packed the same way every time, and nothing odd gets in or out."""

import hashlib
import os
import random
import socket
import tarfile
import time
from pathlib import Path

import pytest

from gpusched.jobs.errors import GpuschedError
from gpusched.scheduler import snapshots
from gpusched.scheduler.snapshots import Ignore, SnapshotStore, pack


@pytest.fixture
def workdir(tmp_path):
    root = tmp_path / "project"
    (root / "src").mkdir(parents=True)
    (root / "train.py").write_text("print('hello')\n")
    (root / "src" / "model.py").write_text("x = 1\n")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    return root


def names(snapshot):
    with tarfile.open(snapshot.path) as tar:
        return tar.getnames()


def test_equal_contents_give_equal_bytes_whatever_their_times_and_order(workdir, tmp_path):
    first = pack(workdir, tmp_path / "a")
    other = tmp_path / "elsewhere"
    files = ["train.py", "src/model.py", "run.sh"]
    random.Random(1).shuffle(files)  # noqa: S311 - the same order each time
    for name in files:
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_bytes((workdir / name).read_bytes())
        os.utime(other / name, (1, 1))
    (other / "run.sh").chmod(0o700)
    second = pack(other, tmp_path / "b")
    assert first.sha256 == second.sha256
    assert first.path.read_bytes() == second.path.read_bytes()
    assert hashlib.sha256(first.path.read_bytes()).hexdigest() == first.sha256
    assert first.path.name == f"{first.sha256}.tar.gz"
    (other / "train.py").write_text("print('bye')\n")
    assert pack(other, tmp_path / "b").sha256 != first.sha256


def test_contents_and_what_may_be_run_come_out_as_they_went_in(workdir, tmp_path):
    snapshot = pack(workdir, tmp_path / "a")
    with tarfile.open(snapshot.path) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    assert (tmp_path / "out" / "src" / "model.py").read_text() == "x = 1\n"
    assert os.access(tmp_path / "out" / "run.sh", os.X_OK)
    assert not os.access(tmp_path / "out" / "train.py", os.X_OK)


def test_caches_environments_and_what_the_ignore_file_names_stay_out(workdir, tmp_path):
    for folder in (".git", "src/__pycache__", ".venv/lib", "data/big", "keep"):
        (workdir / folder).mkdir(parents=True)
        (workdir / folder / "file.bin").write_text("x")
    (workdir / "notes.log").write_text("x")
    (workdir / "important.log").write_text("x")
    (workdir / ".gpuschedignore").write_text("# data\n/data/\n*.log\n!important.log\n")
    assert names(pack(workdir, tmp_path / "a")) == [
        ".gpuschedignore", "important.log", "keep", "keep/file.bin", "run.sh", "src", "src/model.py", "train.py",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "path", "folder", "out"),
    [
        ("*.pt", "a/b/model.pt", False, True),
        ("/build", "a/build", True, False),
        ("/build", "build", True, True),
        ("build/", "build", False, False),
        ("a/*.py", "a/b/c.py", False, False),
        ("a/**/c.py", "a/b/b2/c.py", False, True),
        ("a/**/c.py", "a/c.py", False, True),
        ("**/cache", "x/y/cache", True, True),
        ("logs/**", "logs/a/b", False, True),
        ("logs/**", "logs", True, False),
        ("file[0-9]", "file7", False, True),
        (r"\#odd", "#odd", False, True),
    ],
)
def test_patterns_are_those_of_gitignore(pattern, path, folder, out):
    assert Ignore([pattern]).matches(path, folder=folder) is out


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(GpuschedError, match=r"workdir .*/gone does not exist") as caught:
        pack(tmp_path / "gone", tmp_path / "a")
    assert (caught.value.code, caught.value.exit_code) == ("invalid_workdir", 4)
    (tmp_path / "file").touch()
    with pytest.raises(GpuschedError, match="is a file, not a folder"):
        pack(tmp_path / "file", tmp_path / "a")


def test_what_vanishes_while_it_is_packed_is_named_and_nothing_is_left(workdir, tmp_path, monkeypatch):
    add = snapshots._add

    def vanish(tar, root, path):
        if path == "train.py":
            (root / path).unlink()
        add(tar, root, path)

    monkeypatch.setattr(snapshots, "_add", vanish)
    with pytest.raises(GpuschedError, match=r"cannot read .*train\.py: No such file"):
        pack(workdir, tmp_path / "a")
    assert list((tmp_path / "a").iterdir()) == []


def test_a_file_that_shrinks_while_it_is_packed_is_named(workdir, tmp_path, monkeypatch):
    (workdir / "big").write_bytes(b"x" * 1_000_000)
    real = os.fstat

    def larger(handle):
        found = list(real(handle))
        found[6] += 10
        return os.stat_result(found)

    monkeypatch.setattr(snapshots.os, "fstat", larger)
    with pytest.raises(GpuschedError, match="big changed while it was read"):
        pack(workdir, tmp_path / "a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(workdir, tmp_path):
    (workdir / "secret").touch(mode=0o000)
    with pytest.raises(GpuschedError, match=r"cannot read .*secret: Permission denied"):
        pack(workdir, tmp_path / "a")


def test_too_much_is_refused_with_the_limit_and_a_way_out(workdir, tmp_path):
    (workdir / "data.bin").write_bytes(b"x" * 2000)
    with pytest.raises(GpuschedError, match=r"holds more than 1KB; the limit was passed at") as caught:
        pack(workdir, tmp_path / "a", limit=1000)
    assert ".gpuschedignore" in caught.value.hint


def test_links_that_stay_inside_are_kept_and_others_refused(workdir, tmp_path):
    (workdir / "src" / "latest").symlink_to("../train.py")
    snapshot = pack(workdir, tmp_path / "a")
    with tarfile.open(snapshot.path) as tar:
        assert tar.getmember("src/latest").linkname == "../train.py"
    for name, target in (("out", "../elsewhere"), ("root", "/etc/passwd"), ("dangling", "nothing")):
        link = workdir / name
        link.symlink_to(target)
        with pytest.raises(GpuschedError, match=f"the link {name} leads to {target}"):
            pack(workdir, tmp_path / "a")
        link.unlink()
    (workdir / "loop").symlink_to("loop")
    with pytest.raises(GpuschedError, match="loop"):
        pack(workdir, tmp_path / "a")


def test_sockets_and_pipes_are_passed_over(workdir, tmp_path):
    os.mkfifo(workdir / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        here = Path.cwd()
        os.chdir(workdir)
        sock.bind("socket")
        os.chdir(here)
        assert "pipe" not in names(pack(workdir, tmp_path / "a"))


def test_old_snapshots_that_no_job_needs_are_collected(tmp_path):
    store = SnapshotStore(tmp_path / "snapshots")
    kept = {}
    for what in ("needed", "old", "fresh"):
        body = what.encode()
        kept[what] = hashlib.sha256(body).hexdigest()
        with store.receive(kept[what]) as incoming:
            incoming.write(body)
            incoming.commit()
    now = time.time()
    for what in ("needed", "old"):
        os.utime(store.path(kept[what]), (now - 9999, now - 9999))
    assert store.collect(lambda: {kept["needed"]}, now) == 1
    assert [what for what in kept if store.path(kept[what]).exists()] == ["needed", "fresh"]
    assert store.has(kept["needed"])  # asked for again: kept for another while
    assert store.collect(set, now) == 0
