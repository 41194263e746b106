"""The rules of the house, each as a test: who may import whom, what may lie where, and that words match deeds."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest

from builders import cluster, job, trace
from gpusched.policies.catalog import CATALOG, load
from gpusched.policies.testing import check_policy
from gpusched.scheduler.report import summarize
from gpusched.scheduler.simulate import simulate

ROOT = Path(__file__).parent.parent
FLOORS = ["jobs", "cluster", "policies", "scheduler"]
"""From the ground up: each may import those before it."""

TOP_LEVEL = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "docs", "tests", *FLOORS}

ON_RAY = {
    f"cluster/ray/{name}.py" for name in ("gateway", "gang", "nodes", "runner", "train_callback", "fences", "terms")
}
ON_RAY |= {"scheduler/sweep/on_ray.py"}
"""What runs in the gateway's or a sweep's process, on a node or in a user's job. Nothing else imports Ray."""

EXAMPLES = "jobs/workloads/"
"""Programs that jobs run: they may import what they like, and nothing of ours but themselves."""

IMPURE = {"time", "datetime", "random", "secrets", "uuid", "os", "socket", "subprocess", "threading", "asyncio"}
HEAVY = {"ray", "torch", "sqlalchemy", "alembic", "pydantic", "aiohttp"}


def tracked() -> list[Path]:
    """Every file of the project, as git knows them; without git, every file that is there."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if done.returncode == 0 and done.stdout:
        found = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    else:
        found = [path for folder in sorted(TOP_LEVEL) for path in (ROOT / folder, *(ROOT / folder).rglob("*"))]
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts]


def ours() -> list[str]:
    """The product's modules, as paths from the root."""
    return [
        path.relative_to(ROOT).as_posix()
        for floor in FLOORS
        for path in sorted((ROOT / floor).rglob("*.py"))
        if "__pycache__" not in path.parts
    ]


def imports(module: str) -> Iterator[tuple[int, str]]:
    """(line, what is imported) of a module, also inside functions; ours as `gpusched.folder...`."""
    path = ROOT / module
    package = ["gpusched", *Path(module).parent.parts]
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            whole = ".".join([*base, *filter(None, [node.module])])
            yield node.lineno, whole
            yield from ((node.lineno, f"{whole}.{alias.name}") for alias in node.names)


def floor_of(name: str) -> str:
    parts = name.split(".")
    return parts[1] if parts[0] == "gpusched" and len(parts) > 1 and parts[1] in FLOORS else ""


# Who may import whom ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("floor", FLOORS)
def test_arrows_run_one_way(floor):
    allowed = FLOORS[: FLOORS.index(floor) + 1]
    wrong = [
        f"{module}:{line} imports {name}"
        for module in ours()
        if module.startswith(f"{floor}/")
        for line, name in imports(module)
        if floor_of(name) and floor_of(name) not in allowed
    ]
    assert not wrong


def test_product_code_imports_itself_relatively():
    """One identity of each class for every tool; the bare names belong to other packages."""
    wrong = []
    for module in ours():
        if module.startswith(EXAMPLES) or "/migrations/" in module:  # run as scripts, by jobs and by Alembic
            continue
        for node in ast.walk(ast.parse((ROOT / module).read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            wrong += [f"{module}:{node.lineno} {name}" for name in names if name.split(".")[0] in {"gpusched", *FLOORS}]
    # Its own name, asked at run time, is no import of a class.
    assert [one for one in wrong if not one.endswith(" gpusched")] == []


def test_only_what_runs_beside_ray_imports_ray():
    found = {
        module
        for module in ours()
        if not module.startswith(EXAMPLES)
        for _, name in imports(module)
        if name.split(".")[0] == "ray"
    }
    assert found == ON_RAY


def test_what_the_control_plane_imports_brings_no_ray_and_no_torch():
    """At run time, through everything that these import in turn."""
    modules = [
        "gpusched." + module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for module in ours()
        if module not in ON_RAY and not module.startswith(EXAMPLES) and "/migrations/" not in module
    ]
    modules = [module for module in modules if not module.endswith((".__main__", ".agent", ".node_agent"))]
    program = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    bad = {'ray', 'torch'} & sys.modules.keys()\n"
        "    assert not bad, f'{name} brings {bad}'\n"
    )
    run_python(program)


def test_help_and_the_simulator_load_nothing_heavy():
    program = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from gpusched.scheduler.cli import main\n"
        "from gpusched.scheduler.cli.root import root\n"
        "assert CliRunner().invoke(root, ['--help']).exit_code == 0\n"
        "import gpusched.scheduler.simulate, gpusched.policies.catalog, gpusched.policies.testing\n"
        f"bad = {HEAVY | {'hypothesis'}!r} & sys.modules.keys()\n"
        "assert not bad, bad\n"
    )
    run_python(program)


def run_python(program: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".src")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_policies_and_the_pool_know_no_clock_no_chance_and_no_world():
    """`catalog.py` finds a user's file and `testing/lives.py` makes worlds from seeds; both decide nothing."""
    others = {"policies/catalog.py", "policies/testing/lives.py"}
    pure = [module for module in ours() if module.startswith("policies/") and module not in others]
    wrong = [
        f"{module}:{line} imports {name}"
        for module in [*pure, "cluster/pool.py", "cluster/simulated_backend.py", "jobs/events.py", "jobs/outcome.py"]
        for line, name in imports(module)
        if name.split(".")[0] in IMPURE | HEAVY
    ]
    assert not wrong


def test_the_engine_cannot_tell_a_trial_from_the_real_thing():
    """What varies is what controller.py and simulate.py put together, and nothing else."""
    simulated = {"gpusched.cluster.simulated_backend.SimulatedBackend", "gpusched.cluster.clock.VirtualClock"}
    live = {"gpusched.cluster.clock.WallClock"}
    users = {name: set() for name in simulated | live}
    for module in ours():
        for _, name in imports(module):
            if name in users:
                users[name].add(module)
    assert all(users[name] == {"scheduler/simulate.py"} for name in simulated)
    assert all(users[name] <= {"scheduler/controller.py", "scheduler/control_plane.py"} for name in live)
    assert not {"time", "datetime"} & {name for _, name in imports("scheduler/engine.py")}


# What may lie where -----------------------------------------------------------------------------------------------


def test_the_top_level_holds_the_four_folders_tests_docs_and_what_tools_expect():
    tops = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert {name for name in tops if not name.startswith(".")} <= TOP_LEVEL


def test_the_package_is_the_four_folders_and_the_module_for_jobs():
    links = {path.name: str(path.readlink()) for path in (ROOT / ".src" / "gpusched").iterdir() if path.is_symlink()}
    assert links == {"job.py": "../../jobs/sdk.py", **{floor: f"../../{floor}" for floor in FLOORS}}


def test_no_file_of_tests_has_the_name_of_another():
    """Test folders are no packages: two modules of one name would be one."""
    names: dict[str, list[str]] = {}
    for path in (ROOT / "tests").rglob("*.py"):
        if path.name != "conftest.py":
            names.setdefault(path.name, []).append(path.relative_to(ROOT).as_posix())
    assert {name: paths for name, paths in names.items() if len(paths) > 1} == {}


def test_nothing_tells_of_the_machine_that_it_was_written_on():
    marks = {str(ROOT), f"{Path.home()}/", *index_places()}
    found = []
    for path in tracked():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue  # a picture or an archive
        found += [f"{path.relative_to(ROOT)}: {mark}" for mark in marks if mark in text]
    assert not found


def index_places() -> set[str]:
    """Where this machine's pip looks for packages, unless that is where everybody's does."""
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    places = set()
    for key, value in re.findall(r"^\S*?\.([\w-]+)='(.*)'$", done.stdout, re.MULTILINE):
        if key in {"index-url", "extra-index-url", "find-links"}:
            parts = [urlsplit(word) for word in value.split()]
            places |= {part.hostname or part.path.removesuffix("/simple") for part in parts}
    return places - {"pypi.org", ""}


def test_modules_stay_small_enough_to_be_read():
    long = {module: lines for module in ours() if (lines := (ROOT / module).read_text("utf-8").count("\n")) > 600}
    assert not long


def test_nothing_is_left_to_do_in_the_code():
    wanted = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b|NotImplementedError")
    found = [
        f"{module}:{number} {line.strip()}"
        for module in ours()
        for number, line in enumerate((ROOT / module).read_text("utf-8").splitlines(), 1)
        if wanted.search(line)
    ]
    assert not found


def test_every_exception_to_a_rule_has_its_reason():
    bare = re.compile(r"#\s*(?:noqa(?::\s*[A-Z0-9, ]+)?|type:\s*ignore(?:\[[\w, -]+\])?)\s*$")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked()
        if path.suffix == ".py"
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if bare.search(line)
    ]
    assert not found


# Words match deeds ------------------------------------------------------------------------------------------------


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def test_every_command_and_every_option_is_documented():
    from gpusched.scheduler.cli.root import root  # noqa: PLC0415 - the verbs bring their own imports

    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    for path, command in commands(root):
        name = " ".join(path)
        assert command.help, f"{name} has no help"
        assert f"gpusched {name}" in page, f"docs/cli.md lacks {name}"
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help or option.hidden, f"{name} {option.opts} has no help"


@pytest.mark.parametrize("page", ["README.md", "docs/policies.md"])
def test_every_policy_of_the_catalogue_is_on_the_pages_that_list_them(page):
    text = (ROOT / page).read_text("utf-8")
    assert [name for name in CATALOG if f"`{name}`" not in text] == []


def readme() -> str:
    path = ROOT / "README.md"
    if not path.exists():
        pytest.skip("there is no README.md yet")
    return path.read_text("utf-8")


def example() -> str:
    """The first Python block under a heading that speaks of a policy."""
    speaks = False
    for part in re.split(r"^(#+ [^\n]*|```\w*\n.*?^```)$", readme(), flags=re.MULTILINE | re.DOTALL):
        if part.startswith("#"):
            speaks = "policy" in part.lower()
        elif speaks and part.startswith("```python"):
            return part.removeprefix("```python\n").removesuffix("```")
    raise AssertionError("README.md shows no policy of one's own")


def test_the_policy_that_the_readme_shows_keeps_the_laws_and_decides(tmp_path):
    text = example()
    assert len(text.splitlines()) <= 25
    (name,) = [node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    file = tmp_path / "mypolicy.py"
    file.write_text(text)
    check_policy(f"{file}:{name}", examples=60)
    asks = [job(f"{gpus} GPUs for {gpus + 3} s", at=at) for at, gpus in enumerate([8, 1, 4, 8, 2, 16, 1, 4])]
    asks[5] = replace(asks[5], shape=job("16 GPUs in total").shape)
    run = simulate(trace(*asks), cluster("2x8"), load(f"{file}:{name}"))
    assert summarize(run).finished == len(asks)
    assert run.policy == load(f"{file}:{name}").name
