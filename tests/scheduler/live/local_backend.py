"""A cluster of this machine's processes: it runs jobs for real, without Ray, and they outlive who started them."""

# ruff: noqa: ARG002 - signatures are those of Backend

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from gpusched.cluster.backend import News, Node, NodeChange
from gpusched.jobs.errors import NotFoundError
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job

# A rank's shell: its output and its exit code lie in files, so that the next backend finds them. It begins when all
# that the next one needs is there, and never if who starts it dies before.
RUN = """until [ -e "$READY" ]; do kill -0 "$PLANE" 2>/dev/null || [ -e "$READY" ] || exit 1; sleep 0.01; done
[ "$RANK" != 0 ] || echo "$ATTEMPT" >>"$STARTS"  # for tests that look from outside
( {command}
) >"$DIR/log" 2>&1; echo $? >"$DIR/exit.new"; mv "$DIR/exit.new" "$DIR/exit"
"""


class LocalBackend:
    """Each rank of an attempt is a process group with a directory `job-attempt-rank` of its own."""

    def __init__(self, root: Path, nodes: Sequence[Node], on_news: Callable[[], None] = lambda: None) -> None:
        self.root = root
        self.now: Callable[[], float] = time.time
        """The clock of who asks."""
        self.on_news = on_news
        self.starts: list[tuple[int, int]] = []
        self._lock = threading.Lock()
        self._changes = [NodeChange(self.now(), node) for node in nodes]
        self._events: list[Event] = []
        self._watched: dict[tuple[int, int], int] = {}  # (job, attempt) -> ranks
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def change(self, node: Node, *, gone: bool = False) -> None:
        with self._lock:
            self._changes.append(NodeChange(self.now(), node, gone=gone))
        self.on_news()

    def poll(self, now: float) -> News:
        with self._lock:
            news = News(tuple(self._changes), self._events)
            self._changes, self._events = [], []
        return news

    def next_time(self) -> None:
        return None

    def start(self, job: Job, nodes: tuple[str, ...], now: float) -> None:
        key = (job.id, job.attempt)
        assert job.spec is not None
        self.starts.append(key)
        ranks = []
        for rank, node in enumerate(nodes):
            folder = self._folder(*key, rank)
            folder.mkdir(parents=True)
            environment = {
                **os.environ,
                **job.spec.env,
                **job.spec.secret_values(),
                "DIR": str(folder),
                "RANK": str(rank),
                "ATTEMPT": f"{job.id} {job.attempt}",
                "STARTS": str(self.root / "starts"),
                "READY": str(self._folder(*key, 0) / "ranks"),
                "PLANE": str(os.getpid()),
                **({"GPUSCHED_ARRAY_INDEX": str(job.array_index)} if job.array_id else {}),
            }
            process = subprocess.Popen(
                ["bash", "-c", RUN.format(command=job.spec.run)], env=environment, start_new_session=True
            )
            (folder / "pid").write_text(str(process.pid))
            threading.Thread(target=process.wait, daemon=True).start()
            ranks.append({"rank": rank, "node": node, "address": "127.0.0.1", "gpus": list(range(job.shape.gpus)),
                          "pid": process.pid, "log": str(folder / "log")})  # fmt: skip
        draft = self._folder(*key, 0) / "ranks.new"
        draft.write_text(json.dumps(ranks))
        draft.rename(draft.with_name("ranks"))
        with self._lock:
            self._watched[key] = len(nodes)
            self._events.append(Event(self.now(), Kind.STARTED, *key, {"ranks": ranks}))
        self.on_news()

    def stop(self, job: Job, grace: float, now: float) -> None:
        key = (job.id, job.attempt)
        if key not in self._watched:
            self._report(Event(self.now(), Kind.FINISHED, *key, {"exit_code": 143, "message": "it did not run"}))
            return
        for rank in range(self._watched[key]):
            self._kill(key, rank, signal.SIGTERM)

    def adopt(self, jobs: list[Job], now: float) -> None:
        for job in jobs:
            key = (job.id, job.attempt)
            if key in self._watched:
                continue
            folder = self._folder(*key, 0)
            if not (folder / "ranks").exists():
                self._report(Event(self.now(), Kind.VANISHED, *key, {"message": "it was never started"}))
                continue
            ranks = json.loads((folder / "ranks").read_text())
            with self._lock:
                self._watched[key] = len(ranks)
                self._events.append(Event(self.now(), Kind.STARTED, *key, {"ranks": ranks}))
        self.on_news()

    def vanish(self, job: int, attempt: int, *, message: str = "its node went away") -> None:
        ranks = self._watched.pop((job, attempt))
        for rank in range(ranks):
            self._kill((job, attempt), rank, signal.SIGKILL)
        self._report(Event(self.now(), Kind.VANISHED, job, attempt, {"message": message}))

    def close(self) -> None:
        self._closed.set()
        self._thread.join(5)

    def end_all(self) -> None:
        """No process outlives a test."""
        for pid in self.root.glob("*/pid"):
            if not (pid.parent / "exit").exists():
                self._signal(int(pid.read_text()), signal.SIGKILL)

    def read_log(
        self, job_id: int, attempt: int, rank: int, offset: int, limit: int = 1 << 20, *, node: str = ""
    ) -> Future[tuple[bytes, int]]:
        future: Future[tuple[bytes, int]] = Future()
        path = self._folder(job_id, attempt, rank) / "log"
        if not path.exists():
            future.set_exception(NotFoundError(f"there is no log of rank {rank} on {node}"))
            return future
        data = path.read_bytes()
        start = max(0, len(data) + offset) if offset < 0 else offset
        future.set_result((data[start : start + limit], len(data)))
        return future

    def samples(self) -> list[dict[str, object]]:
        return []

    def links(self) -> dict[str, str]:
        return {"dashboard": "http://127.0.0.1:8265"}

    def alive(self) -> str:
        return ""

    def _folder(self, job: int, attempt: int, rank: int) -> Path:
        return self.root / f"{job}-{attempt}-{rank}"

    def _kill(self, key: tuple[int, int], rank: int, number: int) -> None:
        self._signal(int((self._folder(*key, rank) / "pid").read_text()), number)

    def _signal(self, pid: int, number: int) -> None:
        try:
            if number == signal.SIGTERM:  # the rank's own processes: its shell stays to say how they ended
                subprocess.run(["pkill", "-TERM", "-P", str(pid)], check=False)
            else:
                os.killpg(pid, number)
        except ProcessLookupError:
            pass

    def _report(self, event: Event) -> None:
        with self._lock:
            self._events.append(event)
        self.on_news()

    def _watch(self) -> None:
        while not self._closed.wait(0.02):
            for key, ranks in list(self._watched.items()):
                codes = [self._folder(*key, rank) / "exit" for rank in range(ranks)]
                if not all(code.exists() for code in codes):
                    continue
                del self._watched[key]
                bad = [int(code.read_text()) for code in codes if int(code.read_text())]
                self._report(Event(self.now(), Kind.FINISHED, *key, {"exit_code": bad[0] if bad else 0}))
