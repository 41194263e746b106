"""Whatever stands in a file, its reader ends in a valid object or one clear error: soon, and in little memory."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from fuzz_targets import TARGETS, check
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NASTY = [
    *("", "null", "~", "true", "-1", "0", "1e400", "-1e400", ".nan", ".inf", "nan", "Infinity", "NaN", "9" * 400),
    *("9" * 5000, "0x10", "1_000", "2026-13-45", "1970-01-01", "9999-12-31T23:59:59Z", "-0", "1e-400", "1.5"),
    *(
        "[" * 200,
        "{" * 200,
        "[]",
        "{}",
        "- " * 200,
        "a: " * 50,
        "&a [*a]",
        "*a",
        "&a",
        "<<: *a",
        "!!python/object:os.x",
    ),
    *("!!binary aGk=", "!!set {a}", "? ", "---", "...", "%YAML 9.9", "\t", "\r", "\0", "\x1b[31m", "\x7f", "\u202e"),
    *(
        "\ufeff",
        "\ud800",
        "\U0010ffff",
        "'",
        '"',
        "`",
        "#",
        "|",
        ">",
        "\\",
        "\\u0000",
        "\\ud800",
        ",",
        ":",
        "\n",
        "\n\n",
    ),
    *("=cmd()", "../../etc/passwd", "<script>", "${HOME}", "%s", "{0}", "a" * 5000, "é" * 300, "x=" * 100, "\n" * 500),
]


@st.composite
def mutated(draw: st.DrawFn, seeds: tuple[str, ...]) -> bytes:
    """A valid document with a few cuts, repeats, swaps and insertions."""
    data = draw(st.sampled_from(seeds)).encode()
    for _ in range(draw(st.integers(1, 6))):
        at, end = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        how = draw(st.sampled_from(("insert", "replace", "delete", "repeat", "raw", "value")))
        word = draw(st.sampled_from(NASTY)).encode("utf-8", "surrogatepass")
        if how == "insert":
            data = data[:at] + word + data[at:]
        elif how == "replace":
            data = data[:at] + word + data[end:]
        elif how == "delete":
            data = data[:at] + data[end:]
        elif how == "repeat":
            data = data[:end] + data[at:end] * draw(st.integers(1, 20)) + data[end:]
        elif how == "raw":
            data = data[:at] + draw(st.binary(max_size=20)) + data[at:]
        else:  # what stands behind a colon, a comma or an equals sign
            marks = [place for place, byte in enumerate(data) if byte in b":,=|"]
            if marks:
                at = draw(st.sampled_from(marks)) + 1
                stop = min(
                    (data + b"\n").find(byte, at) for byte in (b"\n", b",") if (data + b"\n").find(byte, at) >= 0
                )
                data = data[:at] + b" " + word + data[stop:]
    return data[: 1 << 20]


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_document_with_faults_ends_in_an_object_or_in_one_clear_error(name):
    target = TARGETS[name]

    @settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(mutated(target.seeds))
    def run(data: bytes) -> None:
        begun = time.thread_time()
        check(target, data)
        assert time.thread_time() - begun < 1, f"{name} took too long"

    run()


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_the_documents_that_the_fuzz_begins_from_are_read(name):
    """So that mutations reach deep: the others would all end at the first line."""
    target = TARGETS[name]
    for seed in target.seeds:
        target.read(seed.encode())


BOMBS = {
    "aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9))
    + "run: a\n",
    "merges": "a: &a {x: 1}\n" + "".join(f"b{i}: &b{i} {{<<: [*a, *a]}}\n" for i in range(500)),
    "depth": "run: " + "[" * 100_000,
    "depth of maps": "run: " + "{a: " * 100_000,
    "depth of JSON": '{"run": ' + "[" * 100_000,
    "depth of lists": "- " * 100_000,
    "many documents": "---\nrun: a\n" * 5_000,
    "many keys": "run: a\nenv:\n" + "".join(f"  A{i}: b\n" for i in range(60_000)),
    "many problems": "".join(f"key{i}: 1\n" for i in range(60_000)),
    "one long word": "run: " + "a" * 1_040_000,
    "a long quoted word": 'run: "' + "\\x41" * 200_000 + '"',
    "nothing but lines": "\n" * 1_000_000,
    "anchors": "".join(f"- &a{i} x\n" for i in range(50_000)),
}


@pytest.mark.parametrize("bomb", sorted(BOMBS))
@pytest.mark.parametrize("name", ["job file", "queue file", "profile", "assertions", "configuration", "submission"])
def test_a_bomb_is_refused_soon_and_in_little_memory(name, bomb):
    data = BOMBS[bomb].encode()
    begun = time.thread_time()
    check(TARGETS[name], data)
    assert time.thread_time() - begun < 3  # a second on a machine that has nothing else to do
    if name not in {"job file", "submission"}:
        return  # what reads YAML is the same in all of them
    tracemalloc.start()
    try:
        check(TARGETS[name], data)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
