"""Plain values as text: Go's forms out, more forms in, nothing lost."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.containers.copilot.scalars import (
    datetime_of,
    datetime_text,
    float_of,
    float_text,
    int_of,
    nanoseconds,
    timedelta_of,
    timedelta_of_nanoseconds,
    timedelta_text,
)

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (3.0, "3"),
        (100.0, "100"),
        (0.1, "0.1"),
        (1e16, "10000000000000000"),
        (123456789012345680.0, "123456789012345680"),
        (5e-324, "0." + "0" * 323 + "5"),
        (float("nan"), "NaN"),
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
    ],
)
def test_floats_are_written_as_go_does(value: float, text: str) -> None:
    assert float_text(value) == text


@given(st.floats())
def test_any_float_comes_back(value: float) -> None:
    back = float_of(float_text(value))
    assert back == value or (math.isnan(back) and math.isnan(value))
    assert math.copysign(1, back) == math.copysign(1, value) or math.isnan(value)
    assert "e" not in float_text(value).lower()


@given(st.integers())
def test_any_integer_comes_back(value: int) -> None:
    assert int_of(str(value)) == value


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, "0s"),
        (1, "1µs"),
        (999, "999µs"),
        (-100, "-100µs"),
        (1_000, "1ms"),
        (1_500, "1.5ms"),
        (999_999, "999.999ms"),
        (SECOND, "1s"),
        (1_500_000, "1.5s"),
        (SECOND + 1, "1.000001s"),
        (59_999_999, "59.999999s"),
        (60 * SECOND, "1m0s"),
        (-90 * SECOND, "-1m30s"),
        (3600 * SECOND, "1h0m0s"),
        (3723 * SECOND, "1h2m3s"),
        (3600 * SECOND + 1, "1h0m0.000001s"),
        (100 * 3600 * SECOND, "100h0m0s"),
    ],
)
def test_spans_are_written_as_go_does(microseconds: int, text: str) -> None:
    assert timedelta_text(timedelta(microseconds=microseconds)) == text


def iso(span: timedelta) -> str:
    sign = "-" if span < timedelta(0) else ""
    seconds, micro = divmod(abs(span // timedelta(microseconds=1)), SECOND)
    return f"{sign}P{seconds // 86400}DT{seconds % 86400 // 3600}H{seconds % 3600 // 60}M{seconds % 60}.{micro:06}S"


@given(st.timedeltas())
def test_any_span_comes_back_from_each_form(span: timedelta) -> None:
    assert timedelta_of(timedelta_text(span)) == span
    assert timedelta_of(str(span)) == span
    assert timedelta_of(iso(span)) == span
    assert timedelta_of_nanoseconds(nanoseconds(span)) == span


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("+1h", timedelta(hours=1)),
        (".5s", timedelta(milliseconds=500)),
        ("1.s", timedelta(seconds=1)),
        ("1m1h", timedelta(minutes=61)),
        ("100us", timedelta(microseconds=100)),
        ("100μs", timedelta(microseconds=100)),
        ("1999ns", timedelta(microseconds=1)),
        ("-1999ns", timedelta(microseconds=-1)),
        ("P1W", timedelta(weeks=1)),
        ("P0.5D", timedelta(hours=12)),
        ("PT1,5S", timedelta(seconds=1.5)),
        ("-PT1M", timedelta(minutes=-1)),
        ("pt36h", timedelta(hours=36)),
        ("-1 day, 23:58:30", timedelta(seconds=-90)),
        ("2 days, 0:00:00", timedelta(days=2)),
    ],
)
def test_spans_are_read_in_other_forms(text: str, span: timedelta) -> None:
    assert timedelta_of(text) == span


@pytest.mark.parametrize(
    "text",
    ["", "1", "-", "h", "1h 2m", "1.2.3s", "P", "PT", "P1", "P1YT1H", "P1M", "1:2:3", "1:60:00", "1:00:60", "١h"],
)
def test_a_text_that_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a span is expected"):
        timedelta_of(text)


@pytest.mark.parametrize("text", ["9" * 20 + "h", "-" + "9" * 20 + "h", "P" + "9" * 20 + "D"])
def test_a_span_that_is_too_long_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="longer than"):
        timedelta_of(text)


@given(st.datetimes(timezones=st.sampled_from([None, UTC, timezone(timedelta(hours=-9, minutes=-30))])))
def test_any_datetime_comes_back_as_the_same_instant(value: datetime) -> None:
    try:
        text = datetime_text(value)
    except OverflowError:
        return  # outside the years 1 to 9999 in UTC
    assert datetime_of(text) == (value if value.tzinfo else value.replace(tzinfo=UTC))
    assert re.fullmatch(r"[0-9T:-]{19}(\.[0-9]*[1-9])?Z", text), "Go prints no trailing zeros"


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2026-11-22T10:00:00Z", "2026-11-22T10:00:00+00:00"),
        ("2026-11-22t10:00:00z", "2026-11-22T10:00:00+00:00"),
        ("2026-11-22 10:00:00+00:00", "2026-11-22T10:00:00+00:00"),
        ("2026-11-22T10:00:00.1-09:30", "2026-11-22T10:00:00.100000-09:30"),
        ("2026-11-22T10:00:00.123456999Z", "2026-11-22T10:00:00.123456+00:00"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00+00:00"),
    ],
)
def test_datetimes_are_read_in_other_forms(text: str, iso: str) -> None:
    assert datetime_of(text).isoformat() == iso


@pytest.mark.parametrize(
    "text",
    [
        "", "2026-11-22", "2026-11-22T10:00Z", "2026-11-22T10:00:00", "2026-11-22T10:00:00+0000", "20261122T100000Z",
        "2026-02-30T10:00:00Z", "2026-11-22T24:00:00Z", "2026-11-22T10:00:00+24:00", "2026-11-22T10:00:00+00:60",
        "2026-11-22T10:00:61Z", "2026-11-22T10:00:00.Z", "٢026-11-22T10:00:00Z",
    ],
)  # fmt: skip
def test_a_text_that_is_no_datetime_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        datetime_of(text)
