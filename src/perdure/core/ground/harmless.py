"""Text from outside on a terminal: control characters are shown, never executed.

Task names, exceptions, log lines and previews may hold escape sequences that clear the screen, hide text, or make the
terminal type commands. Shown as `\\x1b`, a sequence has no effect. Colors in the logs of containers stay.
"""

from __future__ import annotations

import re

# C0 without tab and newline, DEL, C1, direction marks that reorder text, and lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# In a log colors stay, and so do CRLF and marks of direction without an effect on other text. A byte of C1 that is no
# part of a character counts as well: a terminal with an 8-bit encoding executes such bytes.
_UNSAFE_IN_LOG = re.compile(
    "\x1b\\[[0-9;]{0,32}m|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\udc80-\udc9f]|\r(?!\n)"
)


def harmless(text: str) -> str:
    """A text with its control characters escaped."""
    return _UNSAFE.sub(lambda found: _escaped(ord(found[0])), text)


def harmless_log(data: bytes) -> bytes:
    """A piece of a log with control sequences escaped, except colors. A sequence that two pieces share is escaped."""
    text = data.decode("utf-8", "surrogateescape")
    return _UNSAFE_IN_LOG.sub(_shown, text).encode("utf-8", "surrogateescape")


def _shown(found: re.Match[str]) -> str:
    text = found[0]
    if text.endswith("m") and len(text) > 1:
        return text
    return "".join(_escaped(ord(each) & 0xFF if "\udc80" <= each <= "\udcff" else ord(each)) for each in text)


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
