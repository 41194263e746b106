"""Durations and sizes: what people write, what is refused, and that writing and reading are inverse."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusched.jobs.units import (
    DURATION_PATTERN,
    MAX_BYTES,
    MAX_SECONDS,
    UnitError,
    format_duration,
    format_size,
    milli,
    parse_duration,
    parse_size,
)

DURATIONS = {
    "90s": 90,
    "15m": 900,
    "15min": 900,
    "2h": 7200,
    "3d": 259200,
    "1w": 604800,
    "1h30m": 5400,
    "1h 30m": 5400,
    "1d2h3m4s": 93784,
    "1.5h": 5400,
    "0.25s": 0.25,
    "0s": 0,
    " 2h ": 7200,
    "01:30:00": 5400,
    "48:00:00": 172800,
    "1-12:00:00": 129600,
    "1-12:30": 131400,
    "2-00": 172800,
    "3650d": MAX_SECONDS,
}


@pytest.mark.parametrize(("text", "seconds"), DURATIONS.items())
def test_a_duration_is_read_to_seconds(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("60", "60 has no unit", "write 60s for seconds, 60m for minutes or 60h for hours"),
        ("1.5", "1.5 is no duration with a unit", "1h30m"),
        ("1e9", "1e9 is no duration with a unit", "1h30m"),
        ("-5m", "-5m is negative", "1h30m"),
        ("10:30", "10:30 could mean hours or minutes", "HH:MM:SS"),
        ("unlimited", "unlimited is no duration", "leave the key out"),
        ("nan", "nan is no duration", "1h30m"),
        ("", " is no duration", "1h30m"),
        ("h", "h is no duration", "1h30m"),
        ("30m1h", "30m1h is no duration", "1h30m"),
        ("1h1h", "1h1h is no duration", "1h30m"),
        ("5y", "5y is no duration", "1h30m"),
        ("00:75:00", "00:75:00 is no duration", "1h30m"),
        ("1-24:00:00", "1-24:00:00 has 24 hours beside its days", "HH below 24"),
        ("3651d", "3651d is longer than ten years", "3650d"),
        ("999999999999999w", "999999999999999w is longer than ten years", "3650d"),
        ("٣h", "٣h is no duration", "1h30m"),
    ],
)
def test_what_is_no_duration_is_refused_with_the_way_to_write_it(text, message, hint):
    with pytest.raises(UnitError) as caught:
        parse_duration(text)
    assert caught.value.message == message
    assert hint in caught.value.hint


def test_a_very_long_text_is_refused_without_being_repeated():
    with pytest.raises(UnitError) as caught:
        parse_duration("1h" * 1_000_000)
    assert len(str(caught.value)) < 200


@given(st.integers(min_value=0, max_value=MAX_SECONDS * 1000))
def test_a_written_duration_reads_back_to_the_millisecond(milliseconds):
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.text(max_size=80))
def test_any_text_is_a_duration_or_a_clear_refusal(text):
    refusal = ""
    seconds = 0.0
    try:
        seconds = parse_duration(text)
    except UnitError as error:
        refusal = error.hint
    assert refusal or re.match(DURATION_PATTERN, text.strip())
    assert 0 <= seconds <= MAX_SECONDS


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.5, "0.5s"), (90, "1m30s"), (5400, "1h30m"), (604800, "7d"), (86400.001, "1d0.001s")],
)
def test_a_duration_is_written_short(seconds, text):
    assert format_duration(seconds) == text


SIZES = {
    "64GB": 64 * 10**9,
    "64G": 64 * 10**9,
    "64gb": 64 * 10**9,
    "64 GB": 64 * 10**9,
    "64GiB": 64 * 2**30,
    "64Gi": 64 * 2**30,
    "512MB": 512 * 10**6,
    "1.5KiB": 1536,
    "100B": 100,
    "0GB": 0,
    "1PiB": MAX_BYTES,
}


@pytest.mark.parametrize(("text", "size"), SIZES.items())
def test_a_size_is_read_to_bytes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("64", "64 has no unit", "write 64GB, 64GiB or 64MB"),
        ("1e30", "1e30 is no size with a unit", "64GiB"),
        ("1e30 GB", "1e30 GB is no size", "64GiB"),
        ("-1GB", "-1GB is negative", "64GiB"),
        ("GB", "GB is no size", "64GiB"),
        ("64iB", "64iB is no size", "64GiB"),
        ("1EB", "1EB is no size", "64GiB"),
        ("nan", "nan is no size", "64GiB"),
        ("2PiB", "2PiB is more memory than any node has", "1PiB"),
        ("999999999999999PB", "999999999999999PB is more memory than any node has", "1PiB"),
    ],
)
def test_what_is_no_size_is_refused_with_the_way_to_write_it(text, message, hint):
    with pytest.raises(UnitError) as caught:
        parse_size(text)
    assert caught.value.message == message
    assert hint in caught.value.hint


@given(st.integers(min_value=0, max_value=MAX_BYTES))
def test_a_written_size_reads_back_to_the_byte(size):
    assert parse_size(format_size(size)) == size


@given(st.integers(min_value=1, max_value=1000), st.sampled_from([1000, 1024]), st.integers(min_value=1, max_value=4))
def test_a_round_size_is_written_short(count, base, power):
    assert len(format_size(count * base**power)) <= len(f"{count}GiB") + (base == 1000 and count == 1000)


@pytest.mark.parametrize(("size", "text"), [(64 * 10**9, "64GB"), (64 * 2**30, "64GiB"), (0, "0B"), (1001, "1001B")])
def test_a_size_is_written_in_the_unit_it_is_whole_in(size, text):
    assert format_size(size) == text


@given(st.integers(min_value=0, max_value=10**9))
def test_thousandths_survive_the_way_through_a_float(thousandths):
    assert milli(thousandths / 1000) == thousandths


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 0.3333, 1.0005])
def test_what_is_finer_than_a_thousandth_has_none(number):
    assert milli(number) is None
