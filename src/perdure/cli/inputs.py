"""A task's options, built from its signature, and the words of a command line read by the options.

All functions take a task and words, and return values or raise one `InputError`; nothing prints.
"""

from __future__ import annotations

import difflib
import shlex
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from inspect import Parameter
from typing import TYPE_CHECKING, Any

from ..api.convert import LISTS, Unfit, from_text, is_simple, item_of, label, members, shown, stripped
from ..errors import InputError

if TYPE_CHECKING:
    from ..api.task import Task

NOTHING: Any = Parameter.empty


@dataclass(frozen=True, slots=True)
class Input:
    """A parameter of a task as an option."""

    name: str
    option: str
    type: Any
    default: Any
    """`NOTHING` where the input is required."""
    kind: Any
    """As `inspect.Parameter.kind`."""

    @property
    def required(self) -> bool:
        return self.default is NOTHING and self.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)

    @property
    def is_flag(self) -> bool:
        """Whether the option alone says `true`."""
        union = [member for member in members(self.type) if member is not types.NoneType]
        return (stripped(self.type) if not union else union[0] if len(union) == 1 else None) is bool

    @property
    def is_many(self) -> bool:
        """Whether the option may be given several times."""
        return self.kind is Parameter.VAR_POSITIONAL or item_of(self.type) is not None

    @property
    def type_label(self) -> str:
        text = label(self.type)
        return f"{text} ..." if self.kind is Parameter.VAR_POSITIONAL else text

    def __str__(self) -> str:
        return f"{self.option} ({self.type_label})"


def inputs_of(task: Task[..., Any]) -> list[Input]:
    """The inputs of a task, in the order of the parameters."""
    from ..api.given import declared_types

    parameters = task.spec.signature.parameters
    found = []
    for name, declared in declared_types(task).items():
        parameter = parameters[name]
        found.append(Input(name, _option(name, set(parameters)), declared, parameter.default, parameter.kind))
    return found


def _option(name: str, names: set[str]) -> str:
    plain = name.rstrip("_")
    shown_name = plain if plain and plain not in names else name
    return "--" + (shown_name if shown_name.startswith("_") else shown_name.replace("_", "-"))


def command(verb: str, file: str, task: str) -> str:
    """The beginning of the command line, as a user would type it."""
    return f"perdure {verb} {shlex.quote(file)} {shlex.quote(task)}"


# -- reading words ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Own:
    """The options of `perdure run` (or `submit`) itself, which may stand before or behind the task."""

    verb: str = "run"
    name: str | None = None
    store: str | None = None
    at: str | None = None
    delay: str | None = None
    tags: list[str] = field(default_factory=list)
    json: bool = False
    verbose: int = 0
    quiet: bool = False
    help: bool = False


_OWN_FLAGS = {
    "--json": "json", "--verbose": "verbose", "-v": "verbose", "--quiet": "quiet", "-q": "quiet", "--help": "help",
    "-h": "help",
}  # fmt: skip
_OWN_VALUES = {
    "run": {"--name": "name", "--store": "store", "--tag": "tags"},
    "submit": {"--name": "name", "--store": "store", "--tag": "tags", "--at": "at", "--in": "delay"},
}


@dataclass(slots=True)
class Words:
    """The command line of `perdure run` (or `submit`) up to the task; later words are not told apart yet."""

    own: Own = field(default_factory=Own)
    file: str | None = None
    task: str | None = None
    rest: list[str] = field(default_factory=list)


def split(words: Sequence[str], verb: str = "run") -> Words:
    """Find FILE and TASK, and perdure's own options in front of them."""
    found = Words(Own(verb))
    queue = iter(words)
    for word in queue:
        if _take_own(found.own, word, queue):
            continue
        if word.startswith("-"):
            raise InputError(
                f"no such option: {word}; a task's inputs stand behind it: perdure {verb} FILE TASK --INPUT VALUE"
            )
        if found.file is None:
            found.file = word
        else:
            found.task = word
            break
    found.rest = list(queue)
    return found


def _take_own(own: Own, word: str, queue: Iterator[str]) -> bool:
    flag = _OWN_FLAGS.get(word)
    if flag == "verbose" or (len(word) > 1 and set(word[1:]) == {"v"} and word[0] == "-"):
        own.verbose += 1 if word.startswith("--") else len(word) - 1
        return True
    if flag is not None:
        setattr(own, flag, True)
        return True
    option, sign, value = word.partition("=")
    values = _OWN_VALUES[own.verb]
    if option not in values:
        return False
    if not sign:
        try:
            value = next(queue)
        except StopIteration:
            raise InputError(f"{option} needs a value") from None
    if option == "--tag":
        own.tags.append(value)
    else:
        setattr(own, values[option], value)
    return True


def read(task: Task[..., Any], file: str, words: Sequence[str], own: Own) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments for the task. Perdure's own options among the words go to `own`, except where
    the task has an input of the same name; behind a `--` all options are the task's.

    Raises:
        InputError: an input is missing, unknown, given twice, or does not fit the type.
    """
    return _WordReader(task, file, own).read(words)


class _WordReader:
    def __init__(self, task: Task[..., Any], file: str, own: Own) -> None:
        self.task = task
        self.file = file
        self.own = own
        self.inputs = inputs_of(task)
        self.by_name = {one.name: one for one in self.inputs}
        for one in self.inputs:
            self.by_name.setdefault(one.option[2:].replace("-", "_"), one)
        self.rest = next((one for one in self.inputs if one.kind is Parameter.VAR_KEYWORD), None)

    def read(self, words: Sequence[str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given: dict[str, list[str]] = {}
        further: dict[str, str] = {}
        queue = iter(words)
        all_the_tasks = False
        for word in queue:
            if word == "--" and not all_the_tasks:
                all_the_tasks = True
                continue
            ours = not all_the_tasks and not self._is_theirs(word.partition("=")[0])
            if ours and _take_own(self.own, word, queue):
                if self.own.help:
                    return (), {}
                continue
            if not word.startswith("--") or word == "--":
                raise InputError(self._stray(word, given))
            option, sign, text = word.partition("=")
            found, negated = self._input(option)
            if found is None:
                if self.rest is None:
                    raise InputError(self._unknown(option))
                further[option[2:].replace("-", "_")] = text if sign else self._value(option, queue, self.rest)
                continue
            if negated:
                if sign:
                    raise InputError(f"{option} takes no value; write {found.option}=true or {found.option}=false")
                text = "false"
            elif not sign:
                text = "true" if found.is_flag else self._value(option, queue, found)
            given.setdefault(found.name, []).append(text)
        return self._arranged(given, further)

    def _input(self, option: str) -> tuple[Input | None, bool]:
        name = option[2:].replace("-", "_")
        found = self.by_name.get(name)
        if found is not None and found.kind is not Parameter.VAR_KEYWORD:
            return found, False
        if name.startswith("no_"):
            found = self.by_name.get(name[3:])
            if found is not None and found.is_flag:
                return found, True
        return None, False

    def _is_theirs(self, option: str) -> bool:
        """Whether the task has an input of the name. The input then shadows perdure's option (except help)."""
        return option.startswith("--") and option != "--help" and self._input(option)[0] is not None

    def _value(self, option: str, queue: Iterator[str], one: Input) -> str:
        word = next(queue, None)
        if word is None:
            raise InputError(f"{option} needs a value: {one.type_label}")
        begin = word.partition("=")[0]
        if word.startswith("--") and (begin in own_options(self.own.verb) or self._input(begin)[0] is not None):
            raise InputError(f"{option} needs a value: {one.type_label}; if {word} is meant to be it: {option}={word}")
        return word

    def _arranged(self, given: dict[str, list[str]], further: dict[str, str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        from ..api.given import arranged

        missing = [one for one in self.inputs if one.required and one.name not in given]
        if missing:
            raise InputError(self._missing(missing))
        values = {name: self._converted(self.by_name[name], texts) for name, texts in given.items()}
        args, values = arranged(self.task.spec.signature.parameters.values(), values)
        if self.rest is not None:
            values |= {name: self._converted(self.rest, [text], name) for name, text in further.items()}
        return args, values

    def _converted(self, one: Input, texts: list[str], name: str | None = None) -> Any:
        option = one.option if name is None else f"--{name}"
        try:
            if one.kind is Parameter.VAR_POSITIONAL:
                return [from_text(text, one.type) for text in texts]
            if one.is_many:
                return _list(texts, one.type)
            if len(texts) > 1:
                raise InputError(
                    f"input {option} of {self.task.name} is given {len(texts)} times; it is {one.type_label}"
                )
            return from_text(texts[0], one.type)
        except Unfit as unfit:
            typed = f"input {option} of {self.task.name} is {one.type_label}, not {shown(' '.join(texts))}"
            whole = not unfit.path and not unfit.note and unfit.expected.partition(" ")[0] == one.type_label
            raise InputError(typed if whole else f"{typed}: {unfit}") from None

    # -- messages ----------------------------------------------------------------------------------------------

    def _takes(self) -> str:
        return ", ".join(map(str, self.inputs)) or "no inputs"

    def _stray(self, word: str, given: dict[str, list[str]]) -> str:
        flag = next((one for one in reversed(self.inputs) if one.is_flag and one.name in given), None)
        if flag is not None and word.lower() in ("true", "false"):
            return f"unexpected {word!r}; write {flag.option}={word}"
        return f"unexpected {word!r}; inputs are given by name. {self.task.name} takes: {self._takes()}"

    def _unknown(self, option: str) -> str:
        close = difflib.get_close_matches(option, [one.option for one in self.inputs], 1, 0.6)
        hint = f" Did you mean {close[0]}?" if close else ""
        return f"no such input: {option}. {self.task.name} takes: {self._takes()}.{hint}"

    def _missing(self, missing: list[Input]) -> str:
        several = "inputs" if len(missing) > 1 else "input"
        return f"missing {several} of {self.task.name}: {', '.join(map(str, missing))}"


def own_options(verb: str) -> frozenset[str]:
    """The options of `perdure run` (or `submit`) itself."""
    return frozenset({*_OWN_FLAGS, *_OWN_VALUES[verb]})


def _list(texts: list[str], tp: Any) -> Any:
    """A list from a JSON array, or from its items one by one."""
    item = item_of(tp)
    if len(texts) == 1:
        try:
            return from_text(texts[0], tp)
        except Unfit as unfit:
            # An error inside an array is reported; a text that is no array may be an item.
            if unfit.path or (unfit.note and not is_simple(item)):
                raise
    return _collected([from_text(text, item) for text in texts], tp)


def _collected(items: list[Any], tp: Any) -> Any:
    """Converted items, as the declared collection."""
    several = [member for member in members(tp) if member is not types.NoneType]
    tp = several[0] if several else stripped(tp)
    kind = typing.get_origin(tp) or tp
    if kind is tuple:
        return tuple(items)
    return LISTS[kind](items)
