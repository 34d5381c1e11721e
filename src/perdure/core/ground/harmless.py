"""Text from outside on a terminal: control characters are shown, never executed.

Task names, exceptions, log lines and previews may hold escape sequences that clear the screen, hide text, or make the
terminal type commands. Shown as `\\x1b`, a sequence has no effect. Colors in the logs of containers stay.
"""

from __future__ import annotations

import re

# C0 without tab and newline, DEL, C1, direction marks that reorder text, and lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_BYTES = re.compile(
    rb"\A[\x80-\x9f]|\x1b\[[0-9;]{0,32}m|\xc2[\x80-\x9f]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)"
)


def harmless(text: str) -> str:
    """A text with its control characters escaped."""
    return _UNSAFE.sub(lambda found: _escaped(ord(found[0])), text)


def harmless_log(data: bytes) -> bytes:
    """A piece of a log with control sequences escaped, except colors. A sequence that two pieces share is escaped."""
    return _UNSAFE_BYTES.sub(_shown, data)


def _shown(found: re.Match[bytes]) -> bytes:
    data = found[0]
    if data.endswith(b"m") and len(data) > 1:
        return data
    return "".join(_escaped(byte) for byte in data).encode()


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
