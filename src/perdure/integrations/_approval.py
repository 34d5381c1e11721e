"""Pages on which a person answers a condition: plain HTML forms without scripts, readable on a phone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from ..api.convert import Unfit, parsed_json
from ..api.messages import Asked, ConditionInfo, wait_for_box
from ..api.run import Run
from ..api.shapes import text_of
from ..core.ground.model import Kind
from ..core.run.mailbox import box_of
from ._absent import needed

with needed("web", "perdure.integrations.starlette"):
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import HTMLResponse

_STYLE = (
    "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:1rem auto;padding:0 1rem}"
    "pre{white-space:pre-wrap;font:inherit}label{display:block;margin:1rem 0}"
    "input,select,textarea,button{font:inherit;box-sizing:border-box;width:100%;padding:.6rem;margin:.2rem 0}"
)
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # with a stricter policy browsers send no origin along with a form
    "X-Content-Type-Options": "nosniff",
}


def _page(title: str, body: str, code: int = 200) -> HTMLResponse:
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}'
    html = f'<!doctype html><html lang="en"><head>{head}</style><title>{escape(title)}</title></head>'
    return HTMLResponse(f"{html}<body><h1>{escape(title)}</h1>{body}</body></html>", code, _HEADERS)


def overview(waiting: Iterable[ConditionInfo], base: str) -> HTMLResponse:
    """The conditions that wait for an answer."""
    rows = [
        f'<li><a href="{escape(base)}/approvals/{quote(one.run, safe="")}/{quote(one.name, safe="")}">'
        f"{escape(one.prompt or one.name)}</a> ({escape(one.run)})</li>"
        for one in waiting
    ]
    return _page("Approvals", f"<ul>{''.join(rows)}</ul>" if rows else "<p>Nothing waits for an answer.</p>")


def form(run: Run, name: str) -> HTMLResponse:
    """The form for a condition."""
    asked = _asked(run, name)
    if asked is None:
        return _gone(run, name)
    about = f"<p>{escape(asked.description)}</p>" if asked.description else ""
    fields = f'<form method="post">{_fields(asked.shape)}</form>'
    return _page(
        "An answer is needed", f"<pre>{escape(asked.prompt)}</pre>{about}{fields}<p>Run {escape(run.name)}</p>"
    )


def accepted(run: Run, name: str) -> HTMLResponse:
    """The answer is on disk."""
    return _page("Thank you", f"<p>The answer to {escape(name)} is with run {escape(run.name)}.</p>")


def refused(run: Run, name: str, message: str, code: int) -> HTMLResponse:
    """The answer was not taken."""
    return _page("The answer was not taken", f'<pre>{escape(message)}</pre><p><a href="">Try again</a></p>', code)


def _gone(run: Run, name: str) -> HTMLResponse:
    return _page("No answer is needed", f"<p>Run {escape(run.name)} does not wait for {escape(name)}.</p>", 404)


def _asked(run: Run, name: str) -> Asked | None:
    return wait_for_box(run.name, box_of(Kind.CONDITION, name))


# -- fields ----------------------------------------------------------------------------------------------------


def _record(shape: Any) -> dict[str, Any] | None:
    """The shapes of the fields of a record, by name."""
    if isinstance(shape, list) and len(shape) == 3 and shape[0] == "record" and isinstance(shape[2], dict):
        return {name: field for name, field in shape[2].items() if isinstance(field, list) and len(field) == 2}
    return None


def _fields(shape: Any) -> str:
    fields = _record(shape)
    if fields is not None:
        return "".join(
            _labelled(name, f"field.{name}", field[0], field[1]) for name, field in fields.items()
        ) + _button("Send")
    if shape == "bool":
        return _button("Yes", "true") + _button("No", "false")
    return _labelled("Answer", "value", shape, True) + _button("Send")


def _button(label: str, value: str = "") -> str:
    return f'<button name="value" value="{value}">{label}</button>' if value else f"<button>{label}</button>"


def _labelled(label: str, key: str, shape: Any, required: bool) -> str:
    key, need = escape(key), " required" if required else ""
    options = _options(shape)
    if options is not None:
        absent = "" if required else '<option value=""></option>'
        entries = "".join(f'<option value="{escape(one)}">{escape(one)}</option>' for one in options)
        control = f'<select name="{key}"{need}>{absent}{entries}</select>'
    elif shape in ("int", "float"):
        control = f'<input name="{key}" inputmode="decimal"{need}>'
    elif shape in _TEXTS:
        control = f'<input name="{key}">'
    else:
        control = f'<textarea name="{key}" rows="4"{need}></textarea><small>JSON: {escape(text_of(shape))}</small>'
    return f"<label>{escape(label)}{control}</label>"


_TEXTS = ("str", "datetime", "date", "time", "timedelta", "Decimal", "UUID", "bytes")


def _options(shape: Any) -> list[str] | None:
    if shape == "bool":
        return ["true", "false"]
    if isinstance(shape, list) and shape and shape[0] == "literal":
        return [str(option) for option in shape[1:]]
    return None


def decision(run: Run, name: str, body: bytes) -> Any:
    """The JSON of a sent form.

    Raises:
        HTTPException: the run waits for no answer, or the form cannot be read.
        Unfit: a field cannot be read by its type.
    """
    asked = _asked(run, name)
    if asked is None:
        raise HTTPException(404, f"run {run.name!r} does not wait for {name!r}")
    try:
        given = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=1000))
    except ValueError as error:
        raise HTTPException(400, f"the form cannot be read: {error}") from None
    fields = _record(asked.shape)
    if fields is None:
        return _value(asked.shape, given.get("value", ""))
    return {
        name: _value(field[0], given[f"field.{name}"])
        for name, field in fields.items()
        if _is_given(given, name, field)
    }


def _is_given(given: Mapping[str, str], name: str, field: Any) -> bool:
    """Whether a field has a value: an empty field that may be left out has none."""
    return bool(given.get(f"field.{name}")) or (bool(field[1]) and f"field.{name}" in given)


def _value(shape: Any, text: str) -> Any:
    if shape in _TEXTS:
        return text
    if isinstance(shape, list) and shape and shape[0] == "literal":
        return next((option for option in shape[1:] if str(option) == text), text)
    try:
        return parsed_json(text)
    except ValueError as error:
        if shape == "Any" or (isinstance(shape, list) and shape[0] == "union" and "str" in shape[1:]):
            return text
        raise Unfit(text_of(shape), text, note=str(error)) from None


# -- origin ----------------------------------------------------------------------------------------------------


def refuse_other_origin(request: Request) -> None:
    """Refuse a form that a page of another origin sends: the browser would add the person's cookies (WB3).

    Raises:
        HTTPException: the browser names another origin, or none.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        same = site == "same-origin"
    else:
        same = origin is not None and urlsplit(origin).netloc == request.headers.get("host")
    if not same:
        raise HTTPException(403, "this form is taken from the approval page of this server only")
