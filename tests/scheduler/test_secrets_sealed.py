"""Secrets at rest: sealed, bound to their job, opened again by the right key alone, and gone with the job."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from live_kit import spec_text, until

from gpusched.jobs.errors import StoreError
from gpusched.scheduler.daemon import looks_secret
from gpusched.scheduler.store import sealed
from gpusched.scheduler.store.keyring import KEY_FILE, KeyFileError, Keyring, SealError, key_id, new_key
from gpusched.scheduler.store.sql import SqlStore

SENTINEL = "s3ntinel-value-of-a-secret"


def submit(plane, run="true", *, gpus=1, hold=False, secret=SENTINEL):
    body = {"spec": spec_text(run, gpus=gpus, secrets={"TOKEN": secret}), "secrets": {"TOKEN": secret}}
    reply = plane.post("/v1/jobs", {"jobs": [body], "hold": hold})
    assert reply.status == 201, reply.body
    return reply.json["jobs"][0]["id"]


def files_with(folder: Path, words: str) -> list[str]:
    return [str(path) for path in sorted(folder.rglob("*")) if path.is_file() and words.encode() in path.read_bytes()]


# The keys ---------------------------------------------------------------------------------------------------------


def test_a_key_file_is_made_once_for_its_owner_alone(tmp_path):
    keys = Keyring.find(tmp_path, {})
    assert keys.known() == ()
    assert not (tmp_path / KEY_FILE).exists()
    keys.ready()
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    other = Keyring.find(tmp_path, {})
    other.ready()
    assert other.known() == keys.known() != ()


def test_what_is_sealed_opens_for_its_own_job_and_name_only(tmp_path):
    keys = Keyring.find(tmp_path, {})
    key, value = keys.seal("job-a", "TOKEN", SENTINEL)
    assert SENTINEL.encode() not in value
    assert keys.seal("job-a", "TOKEN", SENTINEL)[1] != value
    assert keys.open(key, "job-a", "TOKEN", value) == SENTINEL
    for job, name in (("job-b", "TOKEN"), ("job-a", "OTHER")):
        with pytest.raises(SealError, match="was changed in the database, or is another job's"):
            keys.open(key, job, name, value)
    changed = bytes([*value[:-1], value[-1] ^ 1])
    for wrong in (changed, b"", value[:5]):
        with pytest.raises(SealError):
            keys.open(key, "job-a", "TOKEN", wrong)


@pytest.mark.parametrize("text", ["not a key", new_key()[:-8], "# nothing but words\n", "\xff"])
def test_a_file_that_holds_no_key_is_refused_without_repeating_it(tmp_path, text):
    file = tmp_path / KEY_FILE
    file.write_text(text, encoding="latin-1")
    file.chmod(0o600)
    with pytest.raises(KeyFileError) as caught:
        Keyring.find(tmp_path, {})
    assert str(file) in caught.value.message
    assert "new-key" in caught.value.hint
    assert text.strip() not in caught.value.message or text.startswith("#")


def test_a_key_that_others_may_read_is_refused(tmp_path):
    file = tmp_path / "key"
    file.write_text(new_key())
    file.chmod(0o640)
    with pytest.raises(KeyFileError, match=r"others may read .* \(mode 0640\)"):
        Keyring.find(tmp_path, {"GPUSCHED_SECRET_KEY_FILE": str(file)})


def test_keys_by_value_and_by_file_come_before_the_state_directorys(tmp_path):
    first, second = new_key(), new_key()
    keys = Keyring.find(tmp_path, {"GPUSCHED_SECRET_KEY": f"{first},{second}"})
    assert len(keys.known()) == 2
    with pytest.raises(KeyFileError, match="GPUSCHED_SECRET_KEY"):
        keys.rotate()
    with pytest.raises(KeyFileError, match="there is no key file"):
        Keyring.find(tmp_path, {"GPUSCHED_SECRET_KEY_FILE": str(tmp_path / "absent")})


def test_a_key_that_another_process_put_into_the_file_is_seen(tmp_path):
    keys, other = Keyring.find(tmp_path, {}), Keyring.find(tmp_path, {})
    before, value = keys.seal("job", "TOKEN", SENTINEL)
    added = other.rotate()
    assert keys.known() == (added, before)
    assert keys.seal("job", "TOKEN", SENTINEL)[0] == added
    assert keys.open(before, "job", "TOKEN", value) == SENTINEL


# The database -----------------------------------------------------------------------------------------------------


def test_no_file_of_the_state_directory_holds_a_secret_and_none_is_left_when_the_job_has_ended(plane):
    job = submit(plane, f'test "$TOKEN" = {SENTINEL[:3]}"{SENTINEL[3:]}"')
    assert plane.wait(job)["state"] == "SUCCEEDED"
    held = submit(plane, hold=True)
    assert plane.store.secrets(held) == {"TOKEN": SENTINEL}
    assert plane.store.secrets(job) == {}
    assert files_with(plane.home, SENTINEL) == []
    assert plane.store.unfinished()[0].spec.secret_values() == {"TOKEN": SENTINEL}


@pytest.mark.parametrize(
    "path",
    ["", "/events", "/explain"],
)
def test_no_answer_of_the_api_holds_a_secret(plane, path):
    job = submit(plane, hold=True)
    assert SENTINEL not in plane.get(f"/v1/jobs/{job}{path}").body.decode()
    for listing in ("/v1/jobs?all=1", "/v1/events", "/v1/top", "/v1/status", "/v1/export", "/v1/secrets"):
        assert SENTINEL not in plane.get(listing).body.decode()


def test_a_dry_run_shows_no_secret(plane):
    body = {"spec": spec_text("true", secrets={"TOKEN": SENTINEL}), "secrets": {"TOKEN": SENTINEL}}
    reply = plane.post("/v1/jobs", {"jobs": [body], "dry_run": True})
    assert reply.json["verdicts"][0]["spec"]["secrets"] == {"TOKEN": "***"}
    assert SENTINEL not in reply.body.decode()


def test_secrets_of_an_older_version_are_sealed_when_the_database_opens_and_leave_no_trace(plane_in):
    plane = plane_in()
    job = submit(plane, hold=True)
    uid = plane.job(job)["uid"]
    plane.close()
    path = plane.home / "gpusched.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE job_secrets SET value = ?, key = 'plain'", (SENTINEL.encode(),))
        connection.commit()
    assert files_with(plane.home, SENTINEL)
    store = SqlStore(str(path))
    assert store.secrets(job) == {"TOKEN": SENTINEL}
    with store.reader() as connection:
        assert sealed.PLAIN not in sealed.counts(connection)
    assert files_with(plane.home, SENTINEL) == []
    assert store.job(job).uid == uid
    store.close()


def test_a_row_moved_to_another_job_opens_for_nobody(plane_in):
    plane = plane_in()
    one, two = submit(plane, hold=True), submit(plane, hold=True, secret="another")  # noqa: S106 - a test's
    plane.close()
    with closing(sqlite3.connect(plane.home / "gpusched.db")) as connection:
        (value,) = connection.execute("SELECT value FROM job_secrets WHERE job = ?", (one,)).fetchone()
        connection.execute("UPDATE job_secrets SET value = ? WHERE job = ?", (value, two))
        connection.commit()
    store = SqlStore(str(plane.home / "gpusched.db"))
    with pytest.raises(SealError):
        store.secrets(two)
    assert [job.id for job in store.unfinished()] == [one, two]
    assert list(store.locked) == [two]
    store.close()


# Changing keys ----------------------------------------------------------------------------------------------------


def test_a_new_key_seals_everything_anew_while_jobs_wait(plane):
    jobs = [submit(plane, hold=True) for _ in range(3)]
    (before,) = plane.store.keys.known()
    reply = plane.post("/v1/secrets/rotate-key").json
    assert (reply["sealed"], reply["locked"]) == (3, 0)
    assert [(row["secrets"], row["seals"]) for row in reply["keys"]] == [(3, True), (0, False)]
    assert reply["keys"][1]["key"] == before
    assert all(plane.store.secrets(job) == {"TOKEN": SENTINEL} for job in jobs)
    again = plane.post("/v1/secrets/rotate-key", {"forget_old": True}).json
    assert len(again["keys"]) == 1
    assert all(plane.store.secrets(job) == {"TOKEN": SENTINEL} for job in jobs)
    assert plane.post("/v1/secrets/rotate-key", {"forget_old": "yes"}).status == 400


def test_sealing_anew_goes_in_small_transactions_and_may_be_cut_off_anywhere(plane):
    jobs = [submit(plane, hold=True) for _ in range(5)]
    store = plane.store
    new = store.keys.rotate()
    transactions = []

    def writer():
        transactions.append(1)
        if len(transactions) == 2:
            raise StoreError("the disk is full")
        return store.writer()

    with pytest.raises(StoreError):
        sealed.seal_anew(writer, store.keys, at_once=2)
    with store.reader() as connection:
        assert sealed.counts(connection)[new] == 2
    assert all(store.secrets(job) == {"TOKEN": SENTINEL} for job in jobs)
    assert sealed.seal_anew(store.writer, store.keys, at_once=2) == (3, 0)
    assert all(store.secrets(job) == {"TOKEN": SENTINEL} for job in jobs)


def test_a_job_whose_key_is_gone_is_held_with_the_reason_and_goes_on_when_the_key_is_back(plane_in):
    plane = plane_in()
    key = plane.home / KEY_FILE
    job = submit(plane, f'test "$TOKEN" = {SENTINEL}', gpus=4)
    done = plane.wait(job)
    assert done["state"] == "SUCCEEDED"
    job = submit(plane, f'test "$TOKEN" = {SENTINEL}', hold=True)
    other = plane.submit("true", hold=True)["id"]
    lost = plane.store.keys.known()[0]
    plane.close()
    aside = key.rename(key.with_name("aside"))
    with closing(sqlite3.connect(plane.home / "gpusched.db")) as connection:
        connection.execute("UPDATE jobs SET state = 'QUEUED', reason = '' WHERE id = ?", (job,))
        connection.commit()

    plane = plane_in()
    until(lambda: plane.job(job)["state"] == "HELD")
    held = plane.job(job)
    assert re.match(rf"secret TOKEN is sealed with the key {lost}, which is not in .*: restart", held["message"])
    assert "TOKEN" in plane.get(f"/v1/jobs/{job}/explain").json["summary"]
    assert plane.post(f"/v1/jobs/{other}/release").status == 200
    assert plane.wait(other)["state"] == "SUCCEEDED"
    # Released without its key it is refused before anything runs, and held again.
    assert plane.post(f"/v1/jobs/{job}/release").status == 200
    until(lambda: plane.job(job)["state"] == "HELD")
    assert plane.backend.starts == [(other, 1)]
    assert plane.controller.figures.rebuilds == 1
    plane.close()

    aside.rename(key)
    plane = plane_in()
    assert plane.job(job)["state"] == "HELD"
    assert plane.post(f"/v1/jobs/{job}/release").status == 200
    assert plane.wait(job)["state"] == "SUCCEEDED"


def test_a_key_that_cannot_be_read_keeps_only_jobs_with_secrets_from_being_taken(plane):
    (plane.home / KEY_FILE).write_text("nonsense")
    (plane.home / KEY_FILE).chmod(0o600)
    body = {"spec": spec_text("true", secrets={"TOKEN": SENTINEL}), "secrets": {"TOKEN": SENTINEL}}
    reply = plane.post("/v1/jobs", {"jobs": [body]})
    assert reply.status == 503, reply.body
    assert "no key" in reply.json["error"]["message"]
    assert plane.wait(plane.submit("true")["id"])["state"] == "SUCCEEDED"


# What processes inherit -------------------------------------------------------------------------------------------


def test_a_control_plane_and_its_ray_inherit_no_secret_of_who_starts_them():
    inherited = ["PATH", "HOME", "TOKENIZERS_PARALLELISM", "GPUSCHED_TOKEN", "RAY_AUTH_TOKEN", "PGPASSWORD", "KEYBOARD"]
    assert [name for name in inherited if looks_secret(name)] == []
    kept_back = ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD", "db_password", "OPENAI_APIKEY"]
    assert [name for name in kept_back if not looks_secret(name)] == []


def test_an_id_of_a_key_says_nothing_of_the_key():
    key = os.urandom(32)
    assert re.fullmatch("[0-9a-f]{16}", key_id(key))
    assert key.hex()[:16] != key_id(key)
