"""What a job and gpusched tell each other while the job runs: `from gpusched import job`.

    if job.should_preempt():                 # asked to make room, cancelled, or over its time
        save(draft)
        if job.commit(draft, f"{job.checkpoint_dir()}/{step}.pt"):
            job.report_checkpoint(step)
        sys.exit(job.REQUEUE_ME)

Standard library only, no thread, no connection: the words go through small files in a folder of the rank
(GPUSCHED_CONTROL_DIR). So any process of a rank may use it, also those below torchrun or a data loader; of a gang one
rank is enough. Outside gpusched every call does nothing and says so by what it returns.

Where gpusched is not installed on the nodes, the same module is found as `gpusched_job`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

REQUEUE_ME = 75
"""Exit code for "my work is saved, start me again later" (EX_TEMPFAIL of sysexits.h). It does not count as failed."""

CONTROL = "GPUSCHED_CONTROL_DIR"
FENCE = "GPUSCHED_FENCE"
STOP, CHECKPOINT, PROGRESS = "stop.json", "checkpoint.json", "progress.json"
"""Files of the control folder: the first is the supervisor's word, the others are the job's."""


def attempt() -> int:
    """Which run of the job this is, from 1 on; 0 = not in a gpusched job."""
    return int(os.environ.get("GPUSCHED_ATTEMPT") or 0)


def checkpoint_dir() -> str | None:
    """Where the job keeps its state: the same for every attempt of the job; None = not in a gpusched job.

    A folder that exists, or an address such as s3://bucket/prefix if the job file says so. On nodes without a shared
    disk it is the node's own.
    """
    return os.environ.get("GPUSCHED_CHECKPOINT_DIR") or None


def should_preempt() -> bool:
    """Whether the job was asked to save and leave: preempted, cancelled or over its time. Costs microseconds.

    Who asks wants to live on when SIGTERM comes, be it gpusched's own or torchrun's. So the first call in the main
    thread takes the signal, unless the program has a handler of its own or ignores it.

    The ranks of a gang are asked at the same time but not at the same step: before they leave together they have to
    agree, such as by an all-reduce.
    """
    folder = os.environ.get(CONTROL)
    if folder is None:
        return False
    _outlive_sigterm()
    return Path(folder, STOP).exists()


def seconds_left() -> float | None:
    """Seconds until the job is killed, 0 when they are over; None = it was not asked to leave."""
    folder = os.environ.get(CONTROL)
    if folder is None:
        return None
    try:
        deadline: float = json.loads(Path(folder, STOP).read_bytes())["deadline"]
    except FileNotFoundError:
        return None
    return max(0.0, deadline - time.time())


def superseded() -> bool:
    """Whether a later attempt of this job has begun, so that this one must write nothing any more.

    That happens when a machine loses its network and trains on while the job was started again elsewhere. Ask before a
    checkpoint is overwritten. Where attempts share no disk the answer is no: then they share no checkpoint either.
    """
    fence = os.environ.get(FENCE)
    if not fence:
        return False
    try:
        return int(Path(fence).read_text(encoding="ascii")) > attempt()
    except FileNotFoundError:
        return False


def commit(draft: str | os.PathLike[str], path: str | os.PathLike[str]) -> bool:
    """Put a checkpoint or a result in its place by rename, unless a later attempt of this job has begun.

    The look and the rename are one step: a later attempt begins before it or after it, under one lock beside the
    checkpoints. So an attempt that wakes up on a machine which was cut off can replace nothing any more. Outside
    gpusched, and for checkpoints at an address, it is a rename.

    Args:
        draft: what was written aside, whole, on the same file system: a file, or a folder.
        path: its place. What is there is replaced; a folder only if it is empty.

    Returns:
        Whether it is in its place. False: a later attempt has begun, the draft was left where it is, and this process
        should end.

    Raises:
        OSError: the rename failed.
    """
    draft, path = Path(draft), Path(path)
    if draft.is_file():
        _sync(draft)
    with _fence_held():
        if superseded():
            sys.stderr.write(
                f"gpusched: attempt {attempt()} of this job is over, a later one has begun: {path} was not written\n"
            )
            return False
        draft.replace(path)
    _sync(path.parent)
    return True


@contextlib.contextmanager
def _fence_held() -> Iterator[None]:
    """No other attempt begins while this is held. A file system without locks leaves the look before the rename."""
    fence = os.environ.get(FENCE)
    if not fence:
        yield
        return
    with Path(f"{fence}.lock").open("a", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}:
                raise
        yield


def _sync(path: Path) -> None:
    """Have what was written there on the disk: a rename that outlives a power cut must not name an empty file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def report_checkpoint(step: int) -> bool:
    """Say that the work up to this step is saved: what came before is not lost if the job is stopped.

    To be called when the checkpoint is whole and on the disk, by one rank.

    Returns:
        Whether the checkpoint counts. False: a later attempt of the job has begun, nothing was reported, and this
        process should end.
    """
    if superseded():
        return False
    _report(CHECKPOINT, {"step": int(step), "time": time.time()})
    return True


def report_progress(fraction: float) -> None:
    """Say how much of the whole job is done, from 0 to 1. May be called at every step.

    Raises:
        ValueError: the fraction is not from 0 to 1.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"report_progress({fraction}): give the part that is done, from 0 to 1")
    _report(PROGRESS, {"fraction": float(fraction)})


def _outlive_sigterm() -> None:
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        # A handler and not SIG_IGN: that would be inherited by every program which this one starts.
        signal.signal(signal.SIGTERM, _heard)


def _heard(_signal: int, _frame: FrameType | None) -> None:
    """Nothing: the word is in the file."""


def _forget_signal() -> None:
    """A forked helper, such as a data loader, dies of SIGTERM as its parent expects."""
    if signal.getsignal(signal.SIGTERM) is _heard:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


os.register_at_fork(after_in_child=_forget_signal)


def _report(name: str, words: dict[str, float]) -> None:
    """Replace a file of the control folder in one step: readers see the old words or the new ones."""
    folder = os.environ.get(CONTROL)
    if folder is None:
        return
    path = Path(folder, name)
    draft = path.with_name(f".{name}.{os.getpid()}")
    try:
        draft.write_text(json.dumps(words), encoding="ascii")
        draft.replace(path)
    except OSError as error:
        # What only the scheduler wanted to know must not end a training whose checkpoint is safe.
        sys.stderr.write(f"gpusched: the report {name} could not be written: {error}\n")
