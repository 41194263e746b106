"""The gateway process as its keeper sees it: JSON lines out, JSON lines in, and an end that is always noticed."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from . import local
from .gateway_process import PERHAPS

LOG_LIMIT = 10 << 20
"""Bytes after which the gateway's log is begun anew; the one before is kept."""


class Gateway:
    """One gateway process. `send` and `receive` never block on it: a thread writes and a thread reads.

    Args:
        log: file that gets its standard error.
        address: the cluster's, HOST:PORT.
        token_file: holds the cluster's token; empty = where Ray itself looks for one.
    """

    def __init__(self, log: Path, address: str, token_file: str = "") -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", f"{__package__}.gateway_process", address],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(token_file),
                start_new_session=True,  # a Ctrl-C at the control plane's terminal is not for it
            )
        self._orders: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._write, name="ray-orders", daemon=True).start()
        threading.Thread(target=self._read, name="ray-reports", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, order: dict[str, Any]) -> None:
        """Queue an order. Orders to a gateway that is gone are dropped: `receive` tells that it is."""
        self._orders.put(order)

    def receive(self, within: float) -> dict[str, Any] | None:
        """The next message, None when none came within so many seconds; {"type": "end", "code"} is the last one."""
        try:
            return self._messages.get(timeout=within)
        except queue.Empty:
            return None

    def kill(self) -> None:
        """SIGKILL: it keeps nothing that the next one could not find again."""
        self._process.kill()
        self._orders.put(None)
        self._process.wait()

    def _write(self) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            while (order := self._orders.get()) is not None:
                stdin.write(json.dumps(order).encode() + b"\n")
                stdin.flush()
            stdin.close()
        except BrokenPipeError:
            return  # it is gone; the reader says so

    def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        with stdout:
            for line in stdout:
                if line.endswith(b"\n"):  # else it was killed in the middle of a word
                    self._messages.put(json.loads(line))
        self._messages.put({"type": "end", "code": self._process.wait()})


def environment(token_file: str) -> dict[str, str]:
    """The gateway's environment: ours, with this package to be found, its name for Ray's Jobs page, and a token.

    `ray start` turns token authentication on where it finds a token, but a driver does not. A token that merely lies
    about may be of another cluster: then the gateway asks this one first.
    """
    package = str(Path(__file__).parents[2].parent)
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    metadata = {"gpusched": "control plane", "pid": str(os.getpid())}
    env = {
        **{name: value for name, value in os.environ.items() if name not in local.OWN_SECRETS},
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"metadata": metadata}),
    }
    if token_file:
        env.update(local.token_environment(Path(token_file)))
    elif "RAY_AUTH_MODE" not in env and (
        {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & env.keys() or (Path.home() / ".ray" / "auth_token").exists()
    ):
        env[PERHAPS] = "1"
    return env
