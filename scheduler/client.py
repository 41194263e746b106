"""The Python client of the HTTP API (docs/api.md), which the command line uses too. Standard library only.

    from gpusched.scheduler.client import connect

    client = connect()
    for job in client.jobs(user="ann"):
        print(job["id"], job["state"])

One method a verb. Answers are the API's JSON values; errors are those of `jobs/errors.py`, whichever side found them.
A client holds no connection between calls and may be used by several threads.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast
from urllib.parse import quote

from ..jobs.errors import NotAllowedError, NotFoundError, UnreachableError
from ..jobs.ulid import ulid
from .config import Config, load
from .credentials import Credential, known_as
from .node_client import NodeCalls
from .paths import Paths
from .transport import JSON, START_HINT, Transport

if TYPE_CHECKING:
    from ..jobs.spec import JobSpec

_LONGEST_WAIT = 30.0
"""Seconds that one `wait` request takes at most; the server allows 60."""


def connect(config: Config | None = None) -> Client:
    """A client of the control plane that is configured, else of the one that runs on this machine.

    Raises:
        SpecError: a configuration file is wrong.
        UnreachableError: none is configured and none runs here.
        NotAllowedError: a project's file names the address, and the token is not its own.
    """
    config = config or load()
    address, kind = config.find("address")
    if not address.value:
        return local_client(paths_of(config))
    token, giver = config.find("token")
    if token.value and kind == "project" and giver in {"user", "system"}:
        # Whoever wrote the project's files would be told the user's token.
        raise NotAllowedError(
            f"{address.origin} names the control plane {address.value}, and your token is not sent to an address that"
            " a project's file chose",
            hint=f"if you trust it: export GPUSCHED_ADDRESS={address.value}",
        )
    ca, chooser = config.find("ca")
    kept = known_as(address.value) or Credential("")
    # A project's file does not choose whom a connection of the user's is trusted to.
    trusted = kept.ca if not ca.value or (chooser == "project" and kind != "project") else ca.value
    if not token.value and not kept.token:
        try:
            local = local_client(paths_of(config))
        except UnreachableError:
            return Client(address.value, ca=trusted)
        return local if _same(local.url, address.value) else Client(address.value, ca=trusted)
    return Client(address.value, token.value or kept.token, ca=trusted)


def local_client(paths: Paths, *, timeout: float = 30.0) -> Client:
    """A client of the control plane of a state directory. Raises as `local_plane`."""
    url, token = local_plane(paths)
    certificate = _local_certificate(paths)
    return Client(url, token, timeout=timeout, ca=certificate, pinned=bool(certificate))


def _local_certificate(paths: Paths) -> str:
    """The certificate that the control plane of a state directory serves; empty = it speaks plain HTTP."""
    try:
        return str(json.loads(paths.control_plane.read_text("utf-8")).get("certificate") or "")
    except (OSError, ValueError, AttributeError):
        return ""


def paths_of(config: Config) -> Paths:
    """The state directory of this machine's control plane."""
    home = config["home"]
    return Paths(Path(home).expanduser().absolute()) if home else Paths.default()


def local_plane(paths: Paths) -> tuple[str, str]:
    """(URL, token) of the control plane that last ran in a state directory; whether it still does is not looked at.

    Raises:
        UnreachableError: none ever ran there, or the file cannot be read.
    """
    try:
        written = json.loads(paths.control_plane.read_text("utf-8"))
        url, token, pid = str(written["url"]), str(written["token"]), written.get("pid")
    except FileNotFoundError:
        url, token, pid = "", "", None
    except OSError as error:
        raise UnreachableError(
            f"cannot read {paths.control_plane}: {error.strerror or error}", hint="is it another user's?"
        ) from error
    except (ValueError, KeyError, TypeError):
        raise UnreachableError(f"{paths.control_plane} is damaged", hint="run `gpusched up` again") from None
    if not pid:
        raise UnreachableError("no control plane is running on this machine", hint=START_HINT)
    return url, token


def _same(one: str, other: str) -> bool:
    return one.rstrip("/").rpartition("://")[2] == other.rstrip("/").rpartition("://")[2]


class Client(NodeCalls):
    """A control plane's verbs.

    Args:
        url: `http://HOST:PORT`.
        token: needed for every write, and for reads unless the server is on loopback.
        timeout: seconds without a byte after which the server counts as unreachable; streams may be silent for longer
            than their own keep-alive only.
        ca: file of the authorities that may sign an https server's certificate; empty = the system's.
        pinned: that file is the server's very certificate.
    """

    def __init__(self, url: str, token: str = "", *, timeout: float = 30.0, ca: str = "", pinned: bool = False) -> None:
        self._http = Transport(url, token, timeout, ca=ca, pinned=pinned)
        self.url = self._http.url
        self.token = token
        self.ca, self.pinned = ca, pinned

    def narrate(self, say: Callable[[str], None]) -> None:
        """Have it said in words when a busy control plane is waited for."""
        self._http.say = say

    # Submit -------------------------------------------------------------------------------------------------------

    def submit(
        self, specs: Sequence[JobSpec], *, hold: bool = False, queue_anyway: bool = False, key: str = ""
    ) -> list[JSON]:
        """Queue jobs, all or none, and return them; their workdirs are packed and uploaded as they are now.

        It is sent again if no answer came, and queued once: `key`, a ULID, is what it is known by; "" = a new one.

        Raises:
            BusyError: the control plane takes no more just now, for longer than this waits.
            GpuschedError: a workdir cannot be packed.
            InfeasibleError: a job can never run on this cluster, and `queue_anyway` was not given.
        """
        with tempfile.TemporaryDirectory(prefix="gpusched-") as folder:
            body = self._body(specs, Path(folder), upload=True) | {"hold": hold, "queue_anyway": queue_anyway}
            answer: list[JSON] = self._http.call("POST", "/v1/jobs", body, timeout=120.0, key=key or ulid(time.time()))[
                "jobs"
            ]
        return answer

    def dry_run(self, specs: Sequence[JobSpec]) -> list[JSON]:
        """What would become of jobs if they were submitted now: `verdict` start, wait or never, `why`, `spec`.

        Their workdirs are packed, so that a fault in one shows, and not uploaded.
        """
        with tempfile.TemporaryDirectory(prefix="gpusched-") as folder:
            body = self._body(specs, Path(folder), upload=False) | {"dry_run": True}
            answer: list[JSON] = self._http.call("POST", "/v1/jobs", body)["verdicts"]
        return answer

    def _body(self, specs: Sequence[JobSpec], folder: Path, *, upload: bool) -> JSON:
        snapshots: dict[str, str] = {}
        for workdir in dict.fromkeys(spec.workdir for spec in specs if spec.workdir):
            from .snapshots import pack  # noqa: PLC0415 - most jobs have no workdir

            packed = pack(workdir, folder)
            snapshots[workdir] = packed.sha256
            if upload and not self.has_snapshot(packed.sha256):
                self.put_snapshot(packed.sha256, packed.path)
        return {
            "jobs": [
                {
                    "spec": spec.to_store(),
                    "source": spec.source,
                    "secrets": spec.secret_values(),
                    "snapshot": snapshots.get(spec.workdir or "") if upload else None,
                }
                for spec in specs
            ]
        }

    def has_snapshot(self, sha256: str) -> bool:
        """Whether the control plane has this workdir already."""
        try:
            with self._http.request("HEAD", f"/v1/snapshots/{sha256}"):
                return True
        except NotFoundError:
            return False

    def put_snapshot(self, sha256: str, path: Path) -> None:
        """Upload a packed workdir."""
        with path.open("rb") as packed:
            headers = {"Content-Type": "application/gzip", "Content-Length": str(path.stat().st_size)}
            with self._http.request("PUT", f"/v1/snapshots/{sha256}", packed, headers=headers, timeout=300.0):
                pass

    # Look ---------------------------------------------------------------------------------------------------------

    def jobs(
        self,
        *,
        states: Iterable[str] = (),
        user: str = "",
        queue: str = "",
        name: str = "",
        labels: Mapping[str, str] | None = None,
        since: str = "",
        until: str = "",
        all_states: bool = False,
        newest: bool = False,
        limit: int | None = None,
    ) -> Iterator[JSON]:
        """Jobs, page by page: the unfinished ones, unless `states` or `all_states` say otherwise.

        Args:
            states: states that count.
            user: whose; empty = anyone's.
            queue: in which queue; empty = in any.
            name: of which name; empty = of any.
            labels: labels that they must carry.
            since: submitted then or later, in ISO 8601 or seconds.
            until: submitted then or earlier, likewise.
            all_states: finished ones too.
            newest: from the newest down.
            limit: at most so many.
        """
        query: list[tuple[str, str]] = [("label", f"{key}={value}") for key, value in (labels or {}).items()]
        given = {
            "state": ",".join(states),
            "user": user,
            "queue": queue,
            "name": name,
            "since": since,
            "until": until,
            "all": "1" if all_states else "",
            "newest": "1" if newest else "",
        }
        query += [(key, value) for key, value in given.items() if value]
        left = limit
        after: list[tuple[str, str]] = []
        while left is None or left > 0:
            page = [("limit", str(min(left, 1000)))] if left is not None else []
            answer = self._http.call("GET", "/v1/jobs", query=[*query, *after, *page])
            yield from answer["jobs"]
            if answer.get("next") is None:
                return
            left = None if left is None else left - len(answer["jobs"])
            after = [("after", str(answer["next"]))]

    def job(self, ref: str | int, *, user: str = "") -> JSON:
        """Everything that is known of a job: its spec, attempts, links and usage.

        Args:
            ref: id, ULID or its beginning, name, `@` (the last one submitted) or `@~N`.
            user: whose jobs `@` counts.

        Raises:
            NotFoundError: no such job.
            ConflictError: several unfinished jobs have this name.
        """
        return cast(JSON, self._http.call("GET", _job(ref), query=_of(user)))

    def events(self, ref: str | int, *, user: str = "", after: int = 0) -> list[JSON]:
        """A job's journal."""
        found: list[JSON] = []
        while True:
            query = [*_of(user), ("after", str(after)), ("limit", "1000")]
            page: list[JSON] = self._http.call("GET", f"{_job(ref)}/events", query=query)["events"]
            found += page
            if len(page) < 1000:  # noqa: PLR2004 - the limit above
                return found
            after = page[-1]["seq"]

    def explain(self, ref: str | int, *, user: str = "") -> JSON:
        """Why a job is where it is, and what would make it start."""
        return cast(JSON, self._http.call("GET", f"{_job(ref)}/explain", query=_of(user)))

    def logs(
        self,
        ref: str | int,
        *,
        rank: int | Literal["all"] = "all",
        attempt: int | None = None,
        offset: int = 0,
        tail: int | None = None,
        follow: bool = False,
        user: str = "",
    ) -> Generator[JSON]:
        """A job's output, piece by piece: `{"rank", "offset", "text"}`, and at last `{"end": state, "exit_code"}`.

        With `follow` also `{"state", "message"}` while there is no output, and `{"attempt"}` when another one begins.
        """
        query = [*_of(user), ("rank", str(rank))]
        optional = {"attempt": attempt, "offset": offset or None, "tail": tail, "follow": int(follow) or None}
        query += [(key, str(value)) for key, value in optional.items() if value is not None]
        with self._http.request("GET", f"{_job(ref)}/logs", query=query) as response:
            for line in self._http.values(response):
                yield line
                if "end" in line:
                    return
            raise self._http.cut()

    # Change -------------------------------------------------------------------------------------------------------

    def cancel(self, ref: str | int, *, user: str = "") -> JSON:
        """End a job, or take it out of the queue.

        Raises:
            ConflictError: it has ended already.
        """
        return self._change(ref, "cancel", user)

    def hold(self, ref: str | int, *, user: str = "") -> JSON:
        """Keep a waiting job from starting."""
        return self._change(ref, "hold", user)

    def release(self, ref: str | int, *, user: str = "") -> JSON:
        """Let a held job wait in line again."""
        return self._change(ref, "release", user)

    def requeue(self, ref: str | int, *, user: str = "") -> JSON:
        """Stop a running job, with its grace, and put it back in the queue."""
        return self._change(ref, "requeue", user)

    def _change(self, ref: str | int, verb: str, user: str) -> JSON:
        job: JSON = self._http.call("POST", f"{_job(ref)}/{verb}", {"user": user} if user else {}, query=_of(user))[
            "job"
        ]
        return job

    def wait(
        self, ref: str | int, *, until: Literal["done", "running"] = "done", timeout: float = 30.0, user: str = ""
    ) -> tuple[bool, JSON]:
        """Wait until a job runs or has ended, 30 seconds at most: (whether it did, the job)."""
        seconds = min(timeout, _LONGEST_WAIT)
        query = [*_of(user), ("for", until), ("timeout", f"{seconds:.3f}")]
        answer = self._http.call("GET", f"{_job(ref)}/wait", query=query, timeout=seconds + self._http.timeout)
        return answer["met"], answer["job"]

    # Cluster, figures, control ------------------------------------------------------------------------------------

    def secret_keys(self) -> list[JSON]:
        """The keys that seal secrets, by their ids: `secrets` sealed with each, which one `seals`, which are `here`."""
        keys: list[JSON] = self._http.call("GET", "/v1/secrets")["keys"]
        return keys

    def rotate_secret_key(self, *, forget_old: bool = False) -> JSON:
        """Seal all secrets with a new key: `keys`, how many were `sealed`, how many are `locked`."""
        body = {"forget_old": forget_old}
        return cast(JSON, self._http.call("POST", "/v1/secrets/rotate-key", body, timeout=600.0))

    def use_policy(self, name: str) -> JSON:
        """Have another policy decide; files and modules are those of the control plane's machine.

        Raises:
            NotFoundError: there is none of this name.
            ConflictError: its plan for this moment is at fault; the present one goes on.
        """
        policy: JSON = self._http.call("POST", "/v1/policy", {"name": name})["policy"]
        return policy

    def queues(self) -> JSON:
        """The queues: `configured`, `version`, `default_queue`, and under `queues` what each may have and holds."""
        return cast(JSON, self._http.call("GET", "/v1/queues"))

    def queue(self, name: str) -> JSON:
        """One queue.

        Raises:
            NotFoundError: there is none of this name.
        """
        return cast(JSON, self._http.call("GET", f"/v1/queues/{quote(name, safe='')}")["queue"])

    def apply_queues(
        self,
        text: str,
        *,
        file: str = "queues.yaml",
        user: str = "",
        drain: bool = False,
        strict: bool = False,
        dry_run: bool = False,
    ) -> JSON:
        """Have the queues of a file's text hold, all or nothing; with `dry_run` only say what would change.

        Answers `version`, `written`, `changes`, `warnings` and `displaced` (jobs that lose their queue).

        Raises:
            SpecError: with every problem of the file; under `strict` also quotas beyond the cluster.
            ConflictError: jobs would lose their queue, and `drain` was not given.
        """
        body = {"text": text, "file": file, "user": user, "drain": drain, "strict": strict, "dry_run": dry_run}
        return cast(JSON, self._http.call("POST", "/v1/queues", body))

    def queue_file(self, number: int | None = None) -> JSON:
        """The file of a version: `text` as it was written, `yaml` as exported. None = the one that holds."""
        query = [] if number is None else [("version", str(number))]
        return cast(JSON, self._http.call("GET", "/v1/queue-file", query=query))

    def queue_history(self) -> list[JSON]:
        """Every version of the queues, the newest first: who applied it, when, from which file."""
        versions: list[JSON] = self._http.call("GET", "/v1/queue-versions")["versions"]
        return versions

    def roll_back_queues(self, number: int, *, user: str = "", drain: bool = False, dry_run: bool = False) -> JSON:
        """Have an earlier version hold again, as a new one; 0 = no queues. Answers and raises as `apply_queues`."""
        body = {"version": number, "user": user, "drain": drain, "dry_run": dry_run}
        return cast(JSON, self._http.call("POST", "/v1/queue-versions/rollback", body))

    def archive_parts(self) -> list[JSON]:
        """The parts of the history that lie in Parquet files, the oldest first."""
        parts: list[JSON] = self._http.call("GET", "/v1/archive")["parts"]
        return parts

    def archive_now(self, after: str | None = None) -> int:
        """Move what ended so long ago (`30d`; None = as set) into files now; how many rows went."""
        body = {} if after is None else {"after": after}
        return int(self._http.call("POST", "/v1/archive", body, timeout=3600.0)["rows"])

    def verify_archive(self) -> list[str]:
        """What is wrong with the archived files, in words; empty = nothing."""
        faults: list[str] = self._http.call("POST", "/v1/archive/verify", {}, timeout=3600.0)["faults"]
        return faults

    def restore_archive(self, part: int) -> int:
        """Put a part back into the database; how many rows.

        Raises:
            NotFoundError: there is no such part.
        """
        return int(self._http.call("POST", f"/v1/archive/{part}/restore", {}, timeout=3600.0)["rows"])

    def usage(self, by: str = "user", *, since: str = "") -> JSON:
        """GPU-hours allocated, used and idle, by user, queue, job or gpu-type."""
        return cast(
            JSON, self._http.call("GET", "/v1/usage", query=[("by", by), *([("since", since)] if since else [])])
        )

    def top(self) -> JSON:
        """Nodes, GPUs and jobs as they are now."""
        return cast(JSON, self._http.call("GET", "/v1/top"))

    def all_events(self, *, after: int | None = None) -> Generator[JSON]:
        """Events of all jobs as they happen, from number `after` on; None = from now on. Ends with the connection."""
        query = [("follow", "1"), *([] if after is None else [("after", str(after))])]
        with self._http.request("GET", "/v1/events", query=query) as response:
            for line in self._http.lines(response):
                name, _, value = line.partition(b":")
                if name == b"data":
                    yield json.loads(value)

    def export(self, *, since: str = "") -> Iterator[str]:
        """The journal as a trace, line by line: the jobs submitted since then, in ISO 8601 or seconds."""
        query = [("since", since)] if since else []
        with self._http.request("GET", "/v1/export", query=query, timeout=300.0) as response:
            for line in self._http.lines(response):
                yield line.decode("utf-8", "replace") + "\n"

    # Access -------------------------------------------------------------------------------------------------------

    def whoami(self) -> JSON:
        """Who the control plane takes us for: user, role, groups, token, expires.

        Raises:
            NotAllowedError: it knows no such token.
        """
        return cast(JSON, self._http.call("GET", "/v1/whoami"))

    def users(self) -> list[JSON]:
        """Everybody who was let in."""
        users: list[JSON] = self._http.call("GET", "/v1/users")["users"]
        return users

    def add_user(self, name: str, *, role: str = "user", groups: Sequence[str] = ()) -> JSON:
        """Let somebody in.

        Raises:
            ConflictError: there is such a user already.
        """
        user: JSON = self._http.call("POST", "/v1/users", {"name": name, "role": role, "groups": list(groups)})["user"]
        return user

    def change_user(
        self, name: str, *, role: str | None = None, groups: Sequence[str] | None = None, disabled: bool | None = None
    ) -> JSON:
        """Change what somebody may do; what is None stays as it is.

        Raises:
            NotFoundError: there is no such user.
        """
        changes: JSON = {"role": role, "groups": None if groups is None else list(groups), "disabled": disabled}
        body = {key: value for key, value in changes.items() if value is not None}
        user: JSON = self._http.call("POST", f"/v1/users/{quote(name, safe='')}", body)["user"]
        return user

    def remove_user(self, name: str) -> None:
        """Forget somebody and their tokens; their jobs stay.

        Raises:
            NotFoundError: there is no such user.
        """
        self._http.call("DELETE", f"/v1/users/{quote(name, safe='')}")

    def tokens(self, user: str = "", *, everybody: bool = False) -> list[JSON]:
        """What is known of tokens, one's own if nobody is named."""
        query = [("all", "1")] if everybody else _of(user)
        tokens: list[JSON] = self._http.call("GET", "/v1/tokens", query=query)["tokens"]
        return tokens

    def create_token(self, user: str = "", *, note: str = "", expires: str = "", role: str = "") -> JSON:
        """Make a token, one's own if nobody is named; under `token` the answer has what it is, this one time.

        Args:
            user: whose.
            note: what it is for.
            expires: a duration such as 30d, or `never`; empty = 90 days.
            role: it carries no more than this; empty = all that its user may.
        """
        given = {"user": user, "note": note, "expires": expires, "role": role}
        token: JSON = self._http.call("POST", "/v1/tokens", {key: value for key, value in given.items() if value})[
            "token"
        ]
        return token

    def revoke_token(self, token: str) -> JSON:
        """Have a token, by its id, refused from now on.

        Raises:
            NotFoundError: there is no such token.
        """
        revoked: JSON = self._http.call("POST", f"/v1/tokens/{quote(token, safe='')}/revoke", {})["token"]
        return revoked

    def audit(
        self, *, user: str = "", verb: str = "", outcome: str = "", since: str = "", limit: int | None = None
    ) -> Iterator[JSON]:
        """The audit trail, the newest line first.

        Args:
            user: who asked; empty = anybody.
            verb: for what; empty = anything.
            outcome: `done` or the code of an error; empty = any.
            since: from then on, in ISO 8601 or seconds.
            limit: at most so many lines.
        """
        given = {"user": user, "verb": verb, "outcome": outcome, "since": since}
        query = [(key, value) for key, value in given.items() if value]
        left = limit
        before: list[tuple[str, str]] = []
        while left is None or left > 0:
            size = 1000 if left is None else min(left, 1000)
            lines = self._http.call("GET", "/v1/audit", query=[*query, *before, ("limit", str(size))])["lines"]
            yield from lines
            if len(lines) < size:
                return
            left = None if left is None else left - len(lines)
            before = [("before", str(lines[-1]["seq"]))]

    def status(self) -> JSON:
        """How the control plane is."""
        return cast(JSON, self._http.call("GET", "/v1/status"))

    def shutdown(self) -> None:
        """Stop the control plane; jobs go on."""
        self._http.call("POST", "/v1/shutdown", {})


def _job(ref: str | int) -> str:
    return f"/v1/jobs/{quote(str(ref), safe='')}"


def _of(user: str) -> list[tuple[str, str]]:
    return [("user", user)] if user else []
