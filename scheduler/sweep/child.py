"""A child process with a two-way line of Python values to it, whose end is always noticed on both sides."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


class Child:
    """A Python process that runs a module of this package with the file descriptor of its end of the line.

    It finds the modules that we find, in a session of its own: a Ctrl-C at the terminal is for us, and we end it. What
    it prints goes to standard error.
    """

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        ours, theirs = socket.socketpair()
        paths = dict.fromkeys(path or str(Path.cwd()) for path in sys.path)
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", f"{__package__}.{module}", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, **(environment or {}), "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,
            )
        self.line = Connection(ours.detach())

    def give(self, value: object) -> None:
        """Send a value; if the other side is gone, whoever reads the line next is told."""
        with contextlib.suppress(OSError):
            self.line.send(value)

    def end(self) -> int:
        """Kill it if it still runs; its exit code, negative for the signal that ended it."""
        self.line.close()
        try:
            code = self.process.wait(timeout=0.2)  # it may be ending by itself, and then says why
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return code

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.line.close()
        self.process.wait()


def listen(line: Connection) -> queue.SimpleQueue[Any]:
    """What comes over the line, in order. When the other side is gone, this process ends, whatever it is doing."""
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def hear() -> None:
        while True:
            try:
                heard.put(line.recv())
            except (EOFError, OSError):
                os._exit(0)

    threading.Thread(target=hear, name="line", daemon=True).start()
    return heard
