"""YAML with places: what plain words mean, where values stand, and what a hostile file costs."""

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusched.jobs.yaml_faults import YamlError, decode
from gpusched.jobs.yaml_marks import documents, resolve


def read(text, file="f.yaml", problems=None):
    problems = [] if problems is None else problems
    found = list(documents(decode(text, file), file, problems))
    assert not problems
    return found


def fault(text):
    """The one problem of a text that cannot be read."""
    problems = []
    try:
        list(documents(decode(text, "f.yaml"), "f.yaml", problems))
    except YamlError as error:
        return error.problem
    assert len(problems) == 1, problems
    return problems[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("", None),
        ("~", None),
        ("null", None),
        ("8", 8),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e3", 1000.0),
        ("yes", "yes"),
        ("on", "on"),
        ("NO", "NO"),
        ("010", "010"),
        ("1:30:00", "1:30:00"),
        ("2026-01-02", "2026-01-02"),
        ("1_000", "1_000"),
        ("9" * 50, "9" * 50),
        ("0x1F", "0x1F"),
    ],
)
def test_plain_words_mean_what_yaml_1_2_says(text, value):
    found = resolve(text)
    assert found == value
    assert type(found) is type(value)


def test_every_value_knows_its_place():
    (root,) = read("a: 1\nb:\n  - x\n  - {c: yes}\n")
    assert root.value() == {"a": 1, "b": ["x", {"c": "yes"}]}
    assert [(n.line, n.column) for n in (root.find(("a",)), root.find(("b", 1, "c")))] == [(1, 4), (4, 9)]
    key = root.find(("b", 1, "c"), key=True)
    assert (key.line, key.column) == (4, 6)


def test_the_place_of_what_is_missing_is_that_of_what_should_hold_it():
    (root,) = read("a: 1\nb:\n  c: 2\n")
    node = root.find(("b", "nothing", "below"))
    assert (node.line, node.column) == (3, 3)


def test_under_some_keys_scalars_stay_as_they_are_written():
    (root,) = read('env: {V: 1.10, B: true, O: 007, N: , Q: "5"}\nn: 1.10\n')
    assert root.value(as_text={"env"}) == {"env": {"V": "1.10", "B": "true", "O": "007", "N": None, "Q": "5"}, "n": 1.1}


def test_anchors_and_merge_keys_work_and_own_keys_win():
    (root,) = read("base: &b {x: 1, y: 2}\nmore: {<<: *b, y: 3}\nmany: {<<: [*b, {z: 4}]}\n")
    value = root.value()
    assert value["more"] == {"x": 1, "y": 3}
    assert value["many"] == {"x": 1, "y": 2, "z": 4}


def test_documents_are_read_one_by_one_with_their_own_lines():
    first, second = read("a: 1\n---\nb: 2\n")
    assert second.value() == {"b": 2}
    assert (first.line, second.line) == (1, 3)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm():
    (root,) = read(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert root.value() == {"a": 1, "b": 2}
    assert (root.find(("b",)).line, root.find(("b",)).column) == (2, 4)


def test_a_key_given_twice_is_a_problem_at_its_whole_path():
    problem = fault("a:\n  - b: 1\n    b: 2\n")
    assert (problem.line, problem.column, problem.key) == (3, 5, "a[0].b")
    assert problem.message == "is given twice; the first is in line 2"


FAULTS = {
    "a: 1\n\tb: 2\n": (2, 1, "a tab in the indentation"),
    "a:\n\t- b\n": (2, 1, "a tab in the indentation"),
    "k: |\n  a\n\tb\n": (3, 1, "a tab in the indentation"),
    "a: b: c\n": (1, 5, "mapping values are not allowed"),
    "a: [1, 2\nb: 3\n": (1, 4, "this `[` is not closed"),
    "a: {b: 1\n": (1, 4, "this `{` is not closed"),
    'a: "x\n': (1, 4, "unexpected end of stream"),
    "a: 'x\n": (1, 4, "unexpected end of stream"),
    "a: @x\n": (1, 4, "cannot start any token"),
    "a: !!python/object:os.system {}\n": (1, 4, "the tag `!!python/object:os.system` is not supported"),
    "a: !env X\n": (1, 4, "the tag `!env` is not supported"),
    "[x]: 1\n": (1, 1, "a key must be plain text"),
    "a: *x\n": (1, 4, "`*x` names nothing"),
    "a: &a [*a]\n": (1, 8, "`*a` stands inside what it names"),
    "a: 1\nb: {<<: 3}\n": (2, 9, "`<<` merges mappings only"),
    "a: x\0y\n": (1, 5, "control character U+0000"),
    "a: x\n\x1b[1m\n": (2, 1, "control character U+001B"),
    b"a: 1\nb: caf\xe9\n": (2, 7, "is not UTF-8 text: byte 0xe9"),
    b"\xff\xfea\x00": (1, 1, "is not UTF-8 text: byte 0xff"),
    "[" * 1000: (1, 31, "nested more than 30 levels deep"),
    "- " * 1000: (1, 61, "nested more than 30 levels deep"),
}


@pytest.mark.parametrize("text", FAULTS)
def test_what_cannot_be_read_gets_one_message_with_its_place(text):
    problem = fault(text)
    line, column, message = FAULTS[text]
    assert message in problem.message
    assert (problem.line, problem.column) == (line, column)


def test_nesting_through_aliases_counts_as_nesting():
    chain = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 40))
    assert "nested more than 30 levels deep" in fault(chain).message


LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
MERGES = "a: &a {" + ",".join(f"k{i}: 1" for i in range(1000)) + "}\nb: {<<: [" + ",".join(["*a"] * 20000) + "]}\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(LAUGHS, id="a billion laughs"),
        pytest.param(MERGES, id="merged mappings"),
        pytest.param("run: x\n#" + "#" * 10_000_000, id="ten megabytes"),
        pytest.param(b"a: b\n" * 2_000_000, id="ten megabytes of keys"),
        pytest.param("[" * 900_000, id="open brackets"),
        pytest.param("? " * 500_000, id="open keys"),
        pytest.param("k: 1\n" * 200_000, id="one key again and again"),
        pytest.param("[" + "a," * 500_000 + "]", id="a long list"),
        pytest.param("- !x a\n" * 140_000, id="tags"),
    ],
)
def test_a_bomb_costs_less_than_a_second_and_little_memory(text):
    begin = time.process_time()  # the machine may be busy with other things
    with pytest.raises(YamlError):
        read(text)
    assert time.process_time() - begin < 1
    tracemalloc.start()
    with pytest.raises(YamlError):
        read(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20


def test_a_file_of_many_small_bombs_is_refused_as_a_whole():
    small = "a: &a [" + "x," * 100 + "]\nb: [" + "*a," * 150 + "]\n"
    text = "---\n".join([small] * 100)
    assert len(text) < 1 << 20
    assert "the file holds more than 250,000 values" in fault(text).message


@given(st.binary(max_size=200))
def test_any_bytes_are_yaml_or_a_problem_with_a_place(data):
    problems = []
    try:
        for root in documents(decode(data, "f"), "f", problems):
            root.value()
    except YamlError as error:
        problems.append(error.problem)
    assert all(problem.line >= 1 and problem.column >= 1 and problem.message for problem in problems)


@given(st.text(alphabet="ab: -[]{},&*!|>'\"#%@`\n\t<~?", max_size=60))
def test_any_text_in_yamls_own_letters_is_read_or_refused_with_a_place(text):
    problems = []
    try:
        for root in documents(decode(text, "f"), "f", problems):
            root.value()
    except YamlError as error:
        problems.append(error.problem)
    assert all(problem.line >= 1 and problem.column >= 1 and problem.message for problem in problems)
