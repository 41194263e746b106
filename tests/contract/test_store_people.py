"""Users, tokens and the audit trail on each kind of database."""

import pytest

from gpusched.jobs.errors import NotFoundError
from gpusched.jobs.events import Event, Kind
from gpusched.scheduler.access.model import Role, Token, User
from gpusched.scheduler.store.audit import audit_lines
from gpusched.scheduler.store.people import (
    add_token,
    list_tokens,
    list_users,
    note_use,
    people_version,
    put_user,
    read_people,
    remove_user,
    revoke_token,
    token_counts,
)

T = 1_700_000_000.0
ANN = User("ann", Role.OPERATOR, ("nlp", "staff"), created=T, changed=T)
TOKEN = Token("abc", "ann", "d" * 64, Role.VIEWER, "laptop", T, T + 100.0)


def change(store, do, *arguments):
    with store.writer() as connection:
        do(connection, *arguments)


def read(store, ask, *arguments, **named):
    with store.reader() as connection:
        return ask(connection, *arguments, **named)


def test_a_user_and_a_token_come_back_as_they_were_put(sql_store):
    change(sql_store, put_user, ANN)
    change(sql_store, add_token, TOKEN)
    change(sql_store, add_token, Token("xyz", "ann", "e" * 64, created=T + 1))
    people = read(sql_store, read_people)
    assert people.users == {"ann": ANN}
    assert people.tokens["abc"] == TOKEN
    assert people.tokens["xyz"].expires is people.tokens["xyz"].role is None
    assert [token.id for token in read(sql_store, list_tokens)] == ["xyz", "abc"], "the newest first"
    assert read(sql_store, token_counts, T + 99.0) == {"ann": 2}
    assert read(sql_store, token_counts, T + 101.0) == {"ann": 1}


def test_every_change_raises_the_version_and_a_use_does_not(sql_store):
    seen = [read(sql_store, people_version)]
    for do, *arguments in (
        (put_user, ANN),
        (put_user, User("ann", Role.ADMIN, disabled=True, changed=T + 1)),
        (add_token, TOKEN),
        (revoke_token, "abc", T + 2),
        (remove_user, "ann"),
    ):
        change(sql_store, do, *arguments)
        seen.append(read(sql_store, people_version))
    assert seen == [0, 1, 2, 3, 4, 5]
    change(sql_store, note_use, [("abc", T, "10.0.0.1")])
    assert read(sql_store, people_version) == 5


def test_a_changed_user_keeps_when_they_came(sql_store):
    change(sql_store, put_user, ANN)
    change(sql_store, put_user, User("ann", Role.VIEWER, (), disabled=True, created=T + 9, changed=T + 9))
    assert read(sql_store, list_users) == [User("ann", Role.VIEWER, (), True, T, T + 9)]  # noqa: FBT003 - disabled


def test_a_token_is_revoked_once_and_its_last_use_is_kept(sql_store):
    change(sql_store, add_token, TOKEN)
    change(sql_store, note_use, [("abc", T + 5, "10.0.0.1"), ("gone", T, "10.0.0.2")])
    change(sql_store, revoke_token, "abc", T + 6)
    change(sql_store, revoke_token, "abc", T + 7)
    (found,) = read(sql_store, list_tokens, "ann")
    assert (found.revoked, found.last_used, found.last_from) == (T + 6, T + 5, "10.0.0.1")
    with pytest.raises(NotFoundError):
        change(sql_store, revoke_token, "nope", T)


def test_who_is_removed_is_gone_with_their_tokens_and_nobody_else_s(sql_store):
    change(sql_store, put_user, ANN)
    change(sql_store, add_token, TOKEN)
    change(sql_store, add_token, Token("other", "bob", "e" * 64, created=T))
    change(sql_store, remove_user, "ann")
    assert [token.id for token in read(sql_store, list_tokens)] == ["other"]
    with pytest.raises(NotFoundError):
        change(sql_store, remove_user, "ann")


def test_a_change_that_fails_leaves_no_line_in_the_trail(sql_store):
    line = Event(T, Kind.AUDIT, 0, 0, {"user": "ann", "verb": "users remove", "outcome": "done"})

    def both(connection):
        sql_store.append(connection, [line])
        remove_user(connection, "nobody")

    with pytest.raises(NotFoundError):
        change(sql_store, both)
    assert read(sql_store, audit_lines) == []


def test_the_trail_is_read_from_the_newest_down_and_by_who_what_and_when(sql_store):
    for number in range(6):
        data = {
            "user": "ann" if number % 2 else "bob",
            "verb": "submit",
            "outcome": "done" if number else "not_allowed",
        }
        with sql_store.writer() as connection:
            sql_store.append(connection, [Event(T + number, Kind.AUDIT, 0, 0, data)])
    sql_store.commit(events=[Event(T + 9, Kind.AUDIT, 0, 0, {"user": "eve", "verb": "cancel", "outcome": "done"})])
    lines = read(sql_store, audit_lines)
    assert [line.seq for line in lines] == [7, 6, 5, 4, 3, 2, 1], "numbered with the journal's other lines"
    assert [line.data["user"] for line in lines][:2] == ["eve", "ann"]
    assert [line.seq for line in read(sql_store, audit_lines, user="ann")] == [6, 4, 2]
    assert [line.seq for line in read(sql_store, audit_lines, outcome="not_allowed")] == [1]
    assert [line.seq for line in read(sql_store, audit_lines, verb="submit", since=T + 3)] == [6, 5, 4]
    assert [line.seq for line in read(sql_store, audit_lines, before=4, limit=2)] == [3, 2]
    assert sql_store.events(0)[0][1].kind is Kind.AUDIT
