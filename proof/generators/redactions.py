"""Random secrets in the lines of a log and in exceptions, and a scan of every byte that is kept.

Secrets, and what encodings make of them, have no character in common with the text around them. So a single such
character in the file, in the last lines or in the exception is a leak. Lines are longer than a piece, secrets lie
across the cuts between pieces, and the bytes arrive in random parts.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path

from perdure.containers.engine import LineCutter
from perdure.containers.logs import LogSink
from perdure.containers.program import Secrets
from perdure.containers.redaction import Redactor

from . import Violation

FILLER = "zxwy -"
SECRET = 'ABCDEF0123456789"\\/é'
KEPT = frozenset((FILLER + "*\n").encode())


def history(seed: int) -> None:
    """A log and an exception.

    Raises:
        Violation: P10, a part of a secret is kept.
    """
    dice = random.Random(seed)
    secrets = [secret(dice) for _ in range(dice.randrange(1, 3))]
    redactor = Secrets({f"S{number}": each for number, each in enumerate(secrets)}).redactor()
    _check_log(dice, secrets, redactor)
    _check_error(dice, secrets, redactor)


def secret(dice: random.Random) -> str:
    """A secret of four characters or more, sometimes of several lines."""
    lines = ["".join(dice.choices(SECRET, k=dice.randrange(4, 30))) for _ in range(dice.choice((1, 1, 2)))]
    return "\n".join(lines)


def quoted(dice: random.Random, text: str) -> str:
    """The secret as a text may hold it."""
    forms = (text, json.dumps(text)[1:-1], text.encode().hex(), text.encode().hex().upper())
    return dice.choice(forms)


def around(dice: random.Random, secrets: list[str]) -> str:
    """A short text with some secrets in it."""
    pieces = []
    for _ in range(dice.randrange(1, 4)):
        pieces += [filler(dice, 9), quoted(dice, dice.choice(secrets))]
    return "".join([*pieces, filler(dice, 9)])


def filler(dice: random.Random, most: int) -> str:
    """A text without a secret."""
    return "".join(dice.choices(FILLER, k=dice.randrange(1, most)))


def _check_log(dice: random.Random, secrets: list[str], redactor: Redactor) -> None:
    cut = LineCutter.LONGEST
    text = b""
    for _ in range(dice.randrange(1, 4)):
        # The secret begins in front of a cut, and ends behind the cut in most histories.
        line = quoted(dice, dice.choice(secrets)).encode() if dice.random() < 0.2 else b""
        line += b"z" * (cut * dice.choice((0, 1, 2)) - dice.randrange(40) - len(line))
        text += line + around(dice, secrets).encode() + b"\n"
    cutter = LineCutter("stdout")
    with tempfile.TemporaryDirectory(prefix="perdure-generated-") as folder:
        sink = LogSink(f"{folder}/logs/1.1.log", None, redactor)
        while text:
            size = dice.choice((7, 1000, cut + 3))
            for piece in cutter.feed(text[:size]):
                sink.take(piece)
            text = text[size:]
        for piece in cutter.end():
            sink.take(piece)
        tail = "\n".join(sink.tail).encode()
        sink.close()
        found = Path(sink.path).read_bytes()
    for kept, where in ((found, "the log"), (tail, "the last lines")):
        if not KEPT.issuperset(kept):
            at = next(at for at, byte in enumerate(kept) if byte not in KEPT)
            raise Violation(f"P10 {where} at {at} of {len(kept)}: {kept[max(0, at - 20) : at + 20]!r} of {secrets}")


def _check_error(dice: random.Random, secrets: list[str], redactor: Redactor) -> None:
    error = ValueError(around(dice, secrets))
    values = [around(dice, secrets) for _ in range(2)]
    given = dice.choice((values[0], values[0].encode(), values, tuple(values), [values[0].encode(), [values[1]]]))
    error.found = given  # type: ignore[attr-defined]
    error.add_note(around(dice, secrets))
    try:
        try:
            raise KeyError(values[0])
        except KeyError as cause:
            raise error from cause
    except ValueError as raised:
        redactor.clean(raised)
    kept = "\n".join([str(error), *error.__notes__, *_texts(error.found)])  # type: ignore[attr-defined]
    if not KEPT.issuperset(kept.encode()) or error.__cause__ is not None or error.__context__ is not None:
        raise Violation(f"P10 an exception keeps {kept!r} of {secrets}")


def _texts(value: object) -> list[str]:
    if isinstance(value, bytes):
        return [value.decode()]
    if isinstance(value, (list, tuple)):
        return [text for each in value for text in _texts(each)]
    return [str(value)]
