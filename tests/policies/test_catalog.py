"""How a policy is found: by name, by its parts, in a file, in a module, by entry point."""

from __future__ import annotations

import pytest

from builders import World, cluster, job
from gpusched.jobs.errors import NotFoundError
from gpusched.policies.catalog import CATALOG, load
from gpusched.policies.named.basic import AGE_LIMIT

LIFO = '''
from gpusched.policies.blocking import Strict
from gpusched.policies.greedy import Greedy

class Lifo(Greedy):
    """Last come, first served."""

    name = "lifo"
    blocking = Strict()

    def order(self, job):
        return (-job.submitted, -job.id)
'''


@pytest.mark.parametrize("name", CATALOG)
def test_every_named_policy_says_its_rule(name):
    policy = load(name)
    assert policy.name == name
    assert policy.version
    assert len(CATALOG[name].__doc__ or "") > 60


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nonsense", "no policy named 'nonsense'"),
        ("arrival+nowhere+skip", "no 'nowhere'"),
        ("last+best_fit+skip", "no 'last'"),
        ("arrival+best_fit+maybe", "no 'maybe'"),
        ("no.such.module:Mine", "could not be loaded: ModuleNotFoundError"),
        ("gpusched.policies.greedy:Nothing", "has no 'Nothing'"),
        ("gpusched.policies.named.basic:AGE_LIMIT", "is no class or function"),
        ("/no/such/file.py:Mine", "could not be loaded: FileNotFoundError"),
        ("builtins:dict", "lacks name, version, order, place, plan"),
    ],
)
def test_what_is_not_there_is_said_in_one_sentence(name, says):
    with pytest.raises(NotFoundError) as caught:
        load(name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_hint_lists_what_there_is():
    with pytest.raises(NotFoundError) as caught:
        load("fifi")
    assert all(name in caught.value.hint for name in CATALOG)


def test_a_policy_from_a_users_file_decides(tmp_path):
    file = tmp_path / "mypolicy.py"
    file.write_text(LIFO)
    world = World(cluster("1x8"), load(f"{file}:Lifo"))
    world.submit(job("8 GPUs"))
    world.submit(job("8 GPUs"), job("8 GPUs"))
    world.finished(1)
    assert world.states() == {1: "SUCCEEDED", 2: "QUEUED", 3: "STARTING"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def broken(:", "SyntaxError"),
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("class Mine:\n    def __init__(self, must):\n        pass", "could not be made: TypeError"),
        ("class Mine:\n    name = 'x'", "lacks version, order, place, plan"),
    ],
)
def test_a_broken_file_is_said_and_not_thrown(tmp_path, text, says):
    file = tmp_path / "mypolicy.py"
    file.write_text(text)
    with pytest.raises(NotFoundError, match=says):
        load(f"{file}:Mine")


def test_a_policy_by_entry_point_is_found(tmp_path, monkeypatch):
    package = tmp_path / "lifo-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: lifo\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[gpusched.policies]\nlifo = lifo_policy:Lifo\n")
    (tmp_path / "lifo_policy.py").write_text(LIFO)
    monkeypatch.syspath_prepend(tmp_path)
    assert load("lifo").name == "lifo"


def test_the_age_limit_is_the_documented_day():
    assert AGE_LIMIT == 24 * 3600
    assert "24 h" in (CATALOG["binpack"].__doc__ or "")
