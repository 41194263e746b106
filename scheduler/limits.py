"""Admission: what is refused with 429 and a time to ask again, before memory grows. See `settings.Limits`.

`Traffic` counts what is going on in the server: requests, bytes of bodies, streams. `Census` counts the jobs that wait,
as they were committed. Refusals are `BusyError`s, with a time worked out from how fast it went in the past half minute.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from ..jobs.errors import BusyError, GpuschedError
from ..jobs.job import FINAL, WAITING, Job, State
from .settings import Limits

WINDOW = 30.0
"""Seconds over which a rate is measured."""
SOONEST, LATEST, UNKNOWN = 1.0, 300.0, 10.0
"""Seconds between which a time to ask again lies, and what is said while nothing was measured."""
MOST_USERS = 10_000
"""Users whose requests are counted; the one that was silent for longest is forgotten first."""


class Meter:
    """How many of something a second got done lately. From any thread."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._done: deque[tuple[float, int]] = deque(maxlen=512)

    def note(self, count: int) -> None:
        """So many are done."""
        now = self._now()
        with self._lock:
            # A second is one entry, however many turns the loop takes in it.
            if self._done and now - self._done[-1][0] < WINDOW / 256:
                begun, before = self._done[-1]
                self._done[-1] = (begun, before + count)
            else:
                self._done.append((now, count))

    def seconds(self, count: int) -> float:
        """How long so many will take at the pace of the last seconds, within what is sensible to wait."""
        now = self._now()
        with self._lock:
            lately = [(begun, done) for begun, done in self._done if now - begun <= WINDOW]
        total = sum(done for _, done in lately)
        if not total:
            return UNKNOWN
        pace = total / max(now - lately[0][0], 1.0)
        return min(max(math.ceil(count / pace), SOONEST), LATEST)


class Traffic:
    """Counts what the server is doing. Used by the server's event loop alone.

    Args:
        limits: how much of it there may be.
        now: seconds that only rise.
    """

    def __init__(self, limits: Limits, now: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self.requests = self.bytes = 0
        self.streams: Counter[str] = Counter()
        self.refused = 0
        self._now = now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # user -> (tokens left, when)
        self._answered = Meter(now)

    def pace(self, user: str) -> None:
        """One more request of this user.

        Raises:
            BusyError: they come faster than a user's may.
        """
        rate = self.limits.requests_per_second
        if not rate:
            return
        now, full = self._now(), float(max(self.limits.burst, 1))
        left, before = self._buckets.pop(user, (full, now))
        left = min(full, left + (now - before) * rate)
        self._buckets[user] = (max(left - 1.0, 0.0), now) if left >= 1.0 else (left, now)
        if len(self._buckets) > MOST_USERS:
            self._buckets.popitem(last=False)
        if left < 1.0:
            raise self._busy(
                f"more than {rate:,} requests a second from {user or 'you'}",
                max(math.ceil((1.0 - left) / rate), SOONEST),
                "requests_per_second",
            )

    @contextmanager
    def request(self, size: int) -> Iterator[None]:
        """While one request is answered, whose body is of so many bytes.

        Raises:
            BusyError: too many are going on, or too many bytes are on their way in.
        """
        limits = self.limits
        if limits.requests and self.requests >= limits.requests:
            after = self._answered.seconds(self.requests)
            raise self._busy(f"{self.requests:,} requests are being answered", after, "requests")
        if limits.bytes and self.bytes and self.bytes + size > limits.bytes:
            after = self._answered.seconds(self.requests)
            raise self._busy(f"{self.bytes >> 20:,} MiB of requests are being taken in", after, "bytes")
        self.requests += 1
        self.bytes += size
        try:
            yield
        finally:
            self.requests -= 1
            self.bytes -= size
            self._answered.note(1)

    @contextmanager
    def stream(self, user: str) -> Iterator[None]:
        """While one stream is open.

        Raises:
            BusyError: too many are, of this user or in all.
        """
        limits, total = self.limits, self.streams.total()
        if limits.streams and total >= limits.streams:
            raise self._busy(f"{total:,} streams are open", UNKNOWN, "streams")
        if limits.streams_per_user and self.streams[user] >= limits.streams_per_user:
            mine = self.streams[user]
            raise self._busy(f"{user or 'you'} has {mine:,} streams open", UNKNOWN, "streams_per_user")
        self.streams[user] += 1
        try:
            yield
        finally:
            self.streams[user] -= 1
            if not self.streams[user]:
                del self.streams[user]

    def _busy(self, what: str, after: float, limit: str) -> BusyError:
        self.refused += 1
        return busy(what, after, limit)


def busy(what: str, after: float, limit: str) -> BusyError:
    """A refusal by one of the limits."""
    seconds = math.ceil(after)
    return BusyError(
        f"the control plane is busy: {what}",
        hint=f"ask again in {seconds} s; the limit is `limits.{limit}` of its settings.yaml",
        retry_after=seconds,
    )


class TooManyError(GpuschedError):
    """More in one request than is ever taken: no waiting helps."""

    code = "bad_request"
    exit_code = 2


class Census:
    """How many jobs wait, by user and queue, as of the last commit. The loop counts, any thread asks.

    Attributes:
        limits: how many may.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._where: dict[int, tuple[str, str, int]] = {}  # job -> (user, queue, for how many jobs it stands)
        self._keys: dict[tuple[str, str, int], tuple[str, str, int]] = {}  # one of each, so that jobs share it
        self._users: Counter[str] = Counter()
        self._queues: Counter[str] = Counter()
        self._total = 0
        self._coming: Counter[tuple[str, str]] = Counter()  # admitted and not committed yet
        self._left = Meter()

    def begin(self, jobs: Iterable[Job]) -> None:
        """These are all the unfinished jobs there are: another engine begins."""
        with self._lock:
            self._where, self._keys, self._total = {}, {}, 0
            self._users, self._queues = Counter(), Counter()
        self.saw(jobs)

    def saw(self, jobs: Iterable[Job]) -> None:
        """These jobs were committed as they are."""
        left = 0
        with self._lock:
            for job in jobs:
                before = self._where.get(job.id)
                weight = stands_for(job)
                if weight:
                    key = (job.user, job.queue, weight)
                    if before == key:
                        continue
                    if len(self._keys) > MOST_USERS:
                        self._keys.clear()
                    self._where[job.id] = self._keys.setdefault(key, key)
                    self._count(key, 1)
                elif before is not None:
                    del self._where[job.id]
                if before is not None:
                    self._count(before, -1)
                    left += 1
        if left:
            self._left.note(left)

    def _count(self, key: tuple[str, str, int], sign: int) -> None:
        user, queue, weight = key
        for counter, name in ((self._users, user), (self._queues, queue)):
            counter[name] += sign * weight
            if not counter[name]:
                del counter[name]
        self._total += sign * weight

    @contextmanager
    def admitted(self, jobs: Sequence[Job]) -> Iterator[None]:
        """While these new jobs are on their way to the database.

        Raises:
            BusyError: too many would wait, of one user, in one queue or in all. None of them is taken.
        """
        coming: Counter[tuple[str, str]] = Counter()
        for job in jobs:
            coming[job.user, job.queue] += stands_for(job)
        with self._lock:
            self._check(coming)
            self._coming += coming
        try:
            yield
        finally:
            with self._lock:
                self._coming -= coming

    def _check(self, coming: Counter[tuple[str, str]]) -> None:
        limits, both = self.limits, self._coming + coming
        self._over(limits.waiting, self._total, both.total(), coming.total(), "jobs wait already", "waiting")
        for user in {user for user, _ in coming}:
            added = sum(count for (one, _), count in both.items() if one == user)
            new = sum(count for (one, _), count in coming.items() if one == user)
            words = f"jobs of {user or 'one user'} wait already"
            self._over(limits.waiting_per_user, self._users[user], added, new, words, "waiting_per_user")
        for queue in {queue for _, queue in coming}:
            added = sum(count for (_, one), count in both.items() if one == queue)
            new = sum(count for (_, one), count in coming.items() if one == queue)
            words = f"jobs wait already in queue {queue}"
            self._over(limits.waiting_per_queue, self._queues[queue], added, new, words, "waiting_per_queue")

    def _over(self, limit: int, there: int, added: int, new: int, words: str, name: str) -> None:  # noqa: PLR0917 - one line of a table
        if not limit or there + added <= limit:
            return
        if new > limit:
            raise TooManyError(
                f"{new:,} jobs at once are more than {limit:,}, which may ever wait",
                hint=f"submit fewer; the limit is `limits.{name}` of the control plane's settings.yaml",
            )
        raise busy(f"{there + added - new:,} {words}", self._left.seconds(there + added - limit), name)

    def view(self) -> dict[str, int]:
        """For `status`: how many wait, and of how many users."""
        with self._lock:
            return {"waiting": self._total, "users": len(self._users), "coming": self._coming.total()}


def stands_for(job: Job) -> int:
    """For how many waiting jobs it counts: one, or none; an array for its tasks that are not jobs of their own yet."""
    if job.tasks is None:
        return int(job.state in WAITING)
    return 0 if job.state is State.STOPPING or job.state in FINAL else job.tasks.count - job.tasks.made
