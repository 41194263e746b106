"""Whether a machine can take work: its disks and its memory. Runs in the node's agent; standard library only.

A fault begins when two checks in a row see it, and ends when two in a row see a figure that is clearly better: a disk
at the very limit must not open and close a node all day. The words of a fault hold no figure that moves, so that it is
told once.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BETTER = 1.2
"""How many times the limit a figure must be for a fault to end."""
IN_A_ROW = 2
CHECK_EVERY = 5.0
"""Seconds between two looks at the figures."""
PROBE_EVERY = 30.0
"""Seconds between two trials whether a file can be written."""
DISK_WITHIN = 5.0
"""Seconds after which a file system that does not answer counts as hung."""


class Condition:
    """One thing that can be wrong, with its hysteresis."""

    def __init__(self) -> None:
        self.text = ""
        self._bad = self._good = 0

    def seen(self, text: str, *, better: bool) -> str:
        """What holds after this check.

        Args:
            text: what is wrong now; empty = nothing.
            better: the figure is so good that the fault may end.
        """
        if text:
            self._bad, self._good = self._bad + 1, 0
            if self._bad >= IN_A_ROW:
                self.text = text
        else:
            self._bad, self._good = 0, self._good + better
            if self._good >= IN_A_ROW:
                self.text = ""
        return self.text


class NodeHealth:
    """Checks of one machine.

    Args:
        folders: where jobs write; the nearest folder above that exists is looked at. The first is also written to.
        limits: as `cluster.health.HealthLimits.plain` gives them.
        proc: where the kernel's figures are.
    """

    def __init__(self, folders: Sequence[Path], limits: Mapping[str, Any], proc: Path = Path("/proc")) -> None:
        self._folders = folders
        self._limits = limits
        self._proc = proc
        self._conditions: dict[str, Condition] = {}
        self._checked = self._probed = float("-inf")
        self._thread: threading.Thread | None = None
        self._asked = 0.0
        self._disks: dict[str, tuple[str, bool]] = {}

    def use(self, limits: Mapping[str, Any]) -> None:
        """Other limits from now on."""
        self._limits = limits

    def check(self, clock: float) -> list[str]:
        """What is wrong with the machine, in words; empty = nothing. `clock`: seconds that only rise."""
        if clock - self._checked >= CHECK_EVERY:
            self._checked = clock
            found = {**self._look_at_disks(clock), "memory": self._memory(), "stall": self._stall()}
            for name, (text, better) in found.items():
                self._conditions.setdefault(name, Condition()).seen(text, better=better)
        return [text for name in sorted(self._conditions) if (text := self._conditions[name].text)]

    # ---- disks

    def _look_at_disks(self, clock: float) -> dict[str, tuple[str, bool]]:
        """In a thread that may hang: nothing ends a call into a network file system whose server is gone."""
        if self._thread is None or not self._thread.is_alive():
            probe = clock - self._probed >= PROBE_EVERY
            if probe:
                self._probed = clock
            self._asked = clock
            self._thread = threading.Thread(target=self._read_disks, args=(probe,), name="disks", daemon=True)
            self._thread.start()
            self._thread.join(0.5)
        late = self._thread.is_alive() and clock - self._asked > DISK_WITHIN
        text = "a disk does not answer: " + ", ".join(map(str, self._places())) if late else ""
        return {**self._disks, "hung": (text, not self._thread.is_alive())}

    def _places(self) -> list[Path]:
        return [*self._folders, *map(Path, self._limits["disks"])]

    def _read_disks(self, probe: bool) -> None:  # noqa: FBT001 - a thread's argument
        found: dict[str, tuple[str, bool]] = {}
        seen: set[int] = set()
        for place in self._places():
            folder = existing(place)
            try:
                device, facts = folder.stat().st_dev, os.statvfs(folder)
            except OSError as error:
                found[f"disk {place}"] = f"{place} cannot be read: {error.strerror}", False
                continue
            if device in seen:
                continue
            seen.add(device)
            found[f"disk {place}"] = self._judge(place, facts)
        if probe and self._folders:
            found["probe"] = write_fault(self._folders[0])
        self._disks = {**self._disks, **found}

    def _judge(self, place: Path, facts: os.statvfs_result) -> tuple[str, bool]:
        free, least = facts.f_bavail * facts.f_frsize, self._limits["disk"]
        files, fewest = facts.f_favail, self._limits["inodes"]
        counted = facts.f_files > 0  # some file systems have no fixed number of files
        if facts.f_flag & os.ST_RDONLY:
            return f"{place} is read-only", False
        if free < least:
            return f"disk full: less than {words(least)} free at {place}", False
        if counted and files < fewest:
            return f"disk full: fewer than {fewest} files fit at {place}", False
        return "", free >= least * BETTER and (not counted or files >= fewest * BETTER)

    # ---- memory

    def _memory(self) -> tuple[str, bool]:
        least = self._limits["memory"]
        with (self._proc / "meminfo").open(encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        total = int(lines["MemTotal"].split()[0]) * 1024
        free = int(lines["MemAvailable"].split()[0]) * 1024
        least = min(least, total // 20)  # a small machine must not be ill by its size
        return f"memory is short: less than {words(least)} available" if free < least else "", free >= least * BETTER

    def _stall(self) -> tuple[str, bool]:
        most = self._limits["stall"]
        try:
            text = (self._proc / "pressure" / "memory").read_text(encoding="ascii")
        except OSError:  # a kernel without pressure figures
            return "", True
        full = next((line for line in text.splitlines() if line.startswith("full")), "")
        share = next((float(part[6:]) for part in full.split() if part.startswith("avg60=")), 0.0)
        bad = bool(most) and share > most
        return f"memory is short: over {most} % of a minute every process waited for it" if bad else "", (
            not most or share * BETTER < most
        )


def existing(place: Path) -> Path:
    """The folder itself, or the nearest above that exists."""
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def write_fault(folder: Path) -> tuple[str, bool]:
    """What keeps a file from being written there; the file has no name and is gone at once."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"gpusched")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror}", False
    return "", True


def words(size: int) -> str:
    """Bytes for people."""
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB")):
        if size >= 1 << power:
            return f"{size / (1 << power):g} {unit}"
    return f"{size} bytes"
