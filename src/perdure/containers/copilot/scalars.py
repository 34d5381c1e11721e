"""Plain values as the text that stands in files, and back. Text that does not fit raises `ValueError` with the reason.

Writing follows what Go prints, since images made for Flyte read that; reading takes more forms, see each function.
The text to read comes from a stranger: every pattern is linear in the length of the text, and the length is capped.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Final

LONGEST: Final = 16 * 1024
"""Characters of a number or time at most."""

_DIGITS: Final = r"[0-9]+(?:_[0-9]+)*"
_HEX_DIGITS: Final = r"[0-9a-f]+(?:_[0-9a-f]+)*"
_INT: Final = re.compile(r"[+-]?[0-9]+")
_FLOAT: Final = re.compile(
    rf"[+-]?(?:(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:e[+-]?{_DIGITS})?|inf|infinity|nan)", re.IGNORECASE
)
_HEX_FLOAT: Final = re.compile(
    rf"[+-]?0x_?(?:{_HEX_DIGITS}(?:\.(?:{_HEX_DIGITS})?)?|\.{_HEX_DIGITS})p[+-]?{_DIGITS}", re.IGNORECASE
)
_DECIMAL: Final = re.compile(
    r"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]{1,18})?|inf|infinity|nan)", re.IGNORECASE
)
_DATETIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_NUMBER: Final = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
_GO: Final = re.compile(rf"([+-]?)((?:(?:{_NUMBER})(?:ns|us|µs|μs|ms|s|m|h))+)")
_GO_PART: Final = re.compile(rf"({_NUMBER})(ns|us|µs|μs|ms|s|m|h)")
_ISO_NUMBER: Final = r"([0-9]+(?:[.,][0-9]+)?)"
_ISO: Final = re.compile(
    rf"([+-]?)P(?=[0-9T])(?:{_ISO_NUMBER}W)?(?:{_ISO_NUMBER}D)?"
    rf"(?:T(?=[0-9])(?:{_ISO_NUMBER}H)?(?:{_ISO_NUMBER}M)?(?:{_ISO_NUMBER}S)?)?",
    re.IGNORECASE,
)
_PYTHON: Final = re.compile(r"(?:([+-]?[0-9]+) days?, )?([0-9]+):([0-5][0-9]):([0-5][0-9](?:\.[0-9]+)?)")

_NANOSECONDS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # the micro sign
    "μs": 1_000,  # the Greek letter: Go takes both
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_ISO_SECONDS: Final = (604_800, 86_400, 3_600, 60, 1)
_MICROSECOND: Final = timedelta(microseconds=1)


# -- numbers ---------------------------------------------------------------------------------------------------------


def bool_text(value: bool) -> str:
    return "true" if value else "false"


def bool_of(text: str) -> bool:
    """Go's words: `true`, `t` or `1`, and `false`, `f` or `0`, in any case."""
    match text[:8].lower():
        case "true" | "t" | "1":
            return True
        case "false" | "f" | "0":
            return False
    raise ValueError("true, false, t, f, 1 or 0 is expected")


def int_of(text: str) -> int:
    """Digits, with a sign or not."""
    if not _INT.fullmatch(_capped(text)):
        raise ValueError("digits are expected, with a sign at most")
    return int(text)


def decimal_of(text: str) -> Decimal:
    """A decimal number. `Decimal` itself takes underscores and the digits of every script."""
    if not _DECIMAL.fullmatch(_capped(text)):
        raise ValueError("a decimal number is expected")
    return Decimal(text)


def _capped(text: str) -> str:
    if len(text) > LONGEST:
        raise ValueError(f"it has {len(text):,} characters, and no number or time has more than {LONGEST:,}")
    return text


def float_text(value: float) -> str:
    """The shortest digits that give the same float again, without exponent: `3`, `0.1`, `-0`, `+Inf`, `NaN`."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = format(Decimal(repr(value)), "f")
    return text.removesuffix(".0")


def float_of(text: str) -> float:
    """Go's forms: decimal or hexadecimal (`0x1.8p3`), with an exponent or not, `_` between digits; `inf`, `infinity`
    and `nan` in any case, with a sign or not."""
    if _HEX_FLOAT.fullmatch(_capped(text)):
        try:
            return float.fromhex(text.replace("_", ""))
        except OverflowError:
            raise ValueError("the number is over the range of a float") from None
    if not _FLOAT.fullmatch(text):
        raise ValueError("a number is expected, decimal or hexadecimal, or inf or nan")
    value = float(text.replace("_", ""))
    if math.isinf(value) and "n" not in text.lower():
        raise ValueError("the number is over the range of a float")
    return value


# -- times -----------------------------------------------------------------------------------------------------------


def datetime_text(value: datetime) -> str:
    """RFC 3339 in UTC, without trailing zeros. A datetime without a zone is taken to be in UTC."""
    utc = value.replace(tzinfo=UTC) if value.utcoffset() is None else value.astimezone(UTC)
    whole = utc.replace(tzinfo=None, microsecond=0).isoformat()
    fraction = f".{utc.microsecond:06d}".rstrip("0") if utc.microsecond else ""
    return f"{whole}{fraction}Z"


def datetime_of(text: str) -> datetime:
    """RFC 3339 with any offset, which stays; digits below a microsecond are cut off."""
    found = _DATETIME.fullmatch(_capped(text))
    if not found:
        raise ValueError("RFC 3339 is expected, with its offset from UTC, such as 2026-11-22T10:00:00Z")
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    fraction, sign, hours, minutes = found.groups()[6:]
    zone: timezone = UTC
    if sign:
        if int(minutes) > 59:
            raise ValueError("an offset has at most 59 minutes")
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        zone = timezone(-offset if sign == "-" else offset)
    leap = second == 60  # allowed by RFC 3339, and the same instant as the next second's beginning
    microsecond = 0 if leap else int((fraction or "")[:6].ljust(6, "0"))
    value = datetime(year, month, day, hour, minute, 59 if leap else second, microsecond, zone)
    return value + timedelta(seconds=1) if leap else value


def timedelta_text(value: timedelta) -> str:
    """Go's form: `1h2m3s`, `0s`, `1.5s`, `-1m30s`; below a second `1.5ms`, `100µs`."""
    total = value // _MICROSECOND
    if total == 0:
        return "0s"
    sign, total = "-" if total < 0 else "", abs(total)
    if total < 1_000:
        return f"{sign}{total}µs"
    if total < 1_000_000:
        return f"{sign}{_with_fraction(total, 1_000)}ms"
    seconds = f"{_with_fraction(total % 60_000_000, 1_000_000)}s"
    minutes, hours = total // 60_000_000 % 60, total // 3_600_000_000
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else f"{sign}{seconds}"


def timedelta_of(text: str) -> timedelta:
    """Go's form, ISO 8601 without years and months (`PT1H2M3S`), or Python's (`1 day, 2:03:04.5`)."""
    if _capped(text) in ("0", "+0", "-0"):  # Go's only number without a unit
        return timedelta(0)
    if found := _GO.fullmatch(text):
        sign, parts = found.groups()
        total = sum(Fraction(number) * _NANOSECONDS[unit] for number, unit in _GO_PART.findall(parts))
        return _of_nanoseconds(-total if sign == "-" else total)
    if found := _ISO.fullmatch(text):
        sign, *numbers = found.groups()
        seconds = sum(
            Fraction((number or "0").replace(",", ".")) * factor
            for number, factor in zip(numbers, _ISO_SECONDS, strict=True)
        )
        return _of_nanoseconds((-seconds if sign == "-" else seconds) * 1_000_000_000)
    if found := _PYTHON.fullmatch(text):
        days, hours, minutes, rest = found.groups()
        seconds = int(days or 0) * 86_400 + int(hours) * 3_600 + int(minutes) * 60 + Fraction(rest)
        return _of_nanoseconds(seconds * 1_000_000_000)
    raise ValueError("a span is expected, such as 1h2m3s, PT1H2M3S or 1:02:03")


def nanoseconds(value: timedelta) -> int:
    return value // _MICROSECOND * 1_000


def timedelta_of_nanoseconds(count: int) -> timedelta:
    return _of_nanoseconds(Fraction(count))


def _of_nanoseconds(count: Fraction | int) -> timedelta:
    """Digits below a microsecond are cut off, towards zero."""
    try:
        return timedelta(microseconds=int(count / Fraction(1_000)))
    except OverflowError:
        raise ValueError("it is longer than a timedelta can be") from None


def _with_fraction(count: int, unit: int) -> str:
    whole, rest = divmod(count, unit)
    if not rest:
        return str(whole)
    return f"{whole}.{str(rest).rjust(len(str(unit)) - 1, '0').rstrip('0')}"
