"""What is wrong with a machine: real file systems, and the kernel's figures as files."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gpusched.cluster.health import HealthLimits
from gpusched.cluster.ray.node_health import CHECK_EVERY, PROBE_EVERY, Condition, NodeHealth, existing, write_fault

MIB = 1 << 20
MEMINFO = "MemTotal: {total} kB\nMemFree: 1 kB\nMemAvailable: {free} kB\n"
PRESSURE = "some avg10=0.00 avg60=99.00 avg300=0.00 total=0\nfull avg10=0.00 avg60={full} avg300=0.00 total=0\n"


class Machine:
    """A machine whose /proc the test writes."""

    def __init__(self, folder, places, **limits):
        self.proc = folder / "proc"
        (self.proc / "pressure").mkdir(parents=True)
        self.memory(8000)
        self.stall(0)
        self.health = NodeHealth(places, {**HealthLimits().plain(), "disk": 0, "inodes": 0, **limits}, self.proc)
        self.clock = 0.0

    def memory(self, mib):
        (self.proc / "meminfo").write_text(MEMINFO.format(total=16_000 * 1024, free=mib * 1024))

    def stall(self, percent):
        (self.proc / "pressure" / "memory").write_text(PRESSURE.format(full=percent))

    def checks(self, number, every=CHECK_EVERY):
        """What each of so many checks says."""
        found = []
        for _ in range(number):
            self.clock += every
            found.append(self.health.check(self.clock))
        return found


@pytest.fixture
def machine(tmp_path):
    return lambda *places, **limits: Machine(tmp_path, places or [tmp_path], **limits)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB with few files, mounted for the test."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=4m,nr_inodes=64", "none", str(place)], check=False, capture_output=True
    )
    if not made or made.returncode:
        pytest.skip("this user may mount nothing")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_machine_that_is_well_says_nothing(machine):
    assert machine().checks(5) == [[]] * 5


def test_a_full_disk_is_told_on_the_second_look_and_forgotten_when_there_is_clearly_room(machine, small_disk):
    one = machine(small_disk, disk=2 * MIB)
    assert one.checks(2) == [[], []]
    (small_disk / "big").write_bytes(b"x" * 3 * MIB)
    full = [f"disk full: less than 2 MiB free at {small_disk}"]
    assert one.checks(3) == [[], full, full]
    (small_disk / "big").write_bytes(b"x" * (2 * MIB - MIB // 8))  # room again, but hardly
    assert one.checks(3) == [full] * 3
    (small_disk / "big").unlink()
    assert one.checks(3) == [full, [], []]


def test_a_disk_without_room_for_more_files_is_full_too(machine, small_disk):
    one = machine(small_disk, inodes=32)
    for number in range(40):
        (small_disk / str(number)).touch()
    assert one.checks(2)[-1] == [f"disk full: fewer than 32 files fit at {small_disk}"]


def test_a_disk_that_became_read_only_is_told(machine, small_disk):
    one = machine(small_disk)
    assert one.checks(2)[-1] == []
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert one.checks(2)[-1] == [f"{small_disk} is read-only"]
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert one.checks(2)[-1] == []


def test_further_disks_are_watched_and_a_folder_that_is_not_there_stands_for_the_one_above(
    machine, tmp_path, small_disk
):
    one = machine(tmp_path, disk=2 * MIB, disks=[str(small_disk / "not" / "there")])
    (small_disk / "big").write_bytes(b"x" * 3 * MIB)
    assert one.checks(2)[-1] == [f"disk full: less than 2 MiB free at {small_disk / 'not' / 'there'}"]
    assert existing(small_disk / "not" / "there") == small_disk


def test_a_disk_on_which_nothing_can_be_written_is_told_though_it_has_room(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    fault, better = write_fault(small_disk / "scratch")
    assert "cannot be written: Read-only file system" in fault
    assert not better
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert write_fault(small_disk / "scratch") == ("", True)
    assert list((small_disk / "scratch").iterdir()) == []


def test_a_disk_that_does_not_answer_holds_nobody_up_and_is_told(machine, monkeypatch):
    read, write = os.pipe()
    look = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda folder: (os.read(read, 1), look(folder))[1])  # its server is gone
    one = machine()
    try:
        assert one.checks(1) == [[]]
        assert any("a disk does not answer" in text for text in one.checks(4)[-1])
    finally:
        monkeypatch.undo()
        os.write(write, b"x")
        os.close(write)


def test_short_memory_is_told_and_forgotten(machine):
    one = machine()
    one.memory(100)
    short = ["memory is short: less than 512 MiB available"]
    assert one.checks(3) == [[], short, short]
    one.memory(530)
    assert one.checks(3) == [short] * 3
    one.memory(5000)
    assert one.checks(3) == [short, [], []]


def test_a_machine_on_which_everybody_waits_for_memory_is_told(machine):
    one = machine()
    one.stall(80)
    assert one.checks(2)[-1] == ["memory is short: over 50 % of a minute every process waited for it"]
    one.stall(3)
    assert one.checks(2)[-1] == []


def test_one_look_alone_changes_nothing():
    condition = Condition()
    assert [condition.seen(text, better=not text) for text in ("bad", "", "bad", "", "bad", "bad")][-2:] == ["", "bad"]
    assert [condition.seen(text, better=not text) for text in ("", "bad", "", "bad", "", "")][-2:] == ["bad", ""]


def test_a_check_costs_little_and_is_not_made_more_often_than_it_is_worth(machine):
    one = machine()
    one.memory(100)
    assert one.checks(20, every=CHECK_EVERY / 10)[-1] == ["memory is short: less than 512 MiB available"]
    assert one.checks(1, every=PROBE_EVERY) == [["memory is short: less than 512 MiB available"]]
    assert not list(Path(one.proc.parent).glob("tmp*"))
