"""Which control plane the cluster obeys: the one of the newest term. The fence that no pause gets past.

A control plane may be frozen between any two of its steps, wake up when another one leads, and go on. Its commits fail
by the lease; what it does to the cluster must fail too. The terms that began are noted in Ray's own key-value store,
which one process serves, one request after another. So of two steps there each sees the other, if it comes second:

    who starts an attempt        who takes over
    1 makes its placement group  1 notes the new term
    2 looks for a newer term     2 lists the placement groups
    3 starts it, if there is none

Either 2 on the left sees the term and nothing is started, or 1 on the left came before 2 on the right: then the new
leader knows of the group, and ends what was not started or takes up what was. In the same order a list of what nobody
wants any more is made first and the newest term looked at after it: it never holds what a newer term began.

Who takes over lists *after* noting; who acts looks *after* its own step. Blocks; imported by the gateway alone.
"""

from __future__ import annotations

from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_list, _internal_kv_put

NAMESPACE = b"gpusched"


class SupersededError(Exception):
    """A newer term has begun: this gateway serves a control plane that leads no more."""


def _prefix(owner: str) -> str:
    return f"term:{owner}:"


def newest(owner: str) -> int:
    """The newest term of this database's control planes that the cluster was told of; 0 = none."""
    prefix = _prefix(owner).encode()
    found = _internal_kv_list(prefix, namespace=NAMESPACE) or ()
    return max((int(key.removeprefix(prefix)) for key in found), default=0)


def begin(owner: str, term: int) -> None:
    """Note that a term has begun. Older ones are forgotten; a newer one stays."""
    prefix = _prefix(owner)
    # A key a term, so that two at once cannot write over each other: the newest is the greatest that is there.
    _internal_kv_put(f"{prefix}{term:020d}".encode(), b"", overwrite=True, namespace=NAMESPACE)
    for key in _internal_kv_list(prefix.encode(), namespace=NAMESPACE) or ():
        if int(key.removeprefix(prefix.encode())) < term:
            _internal_kv_del(key, namespace=NAMESPACE)
