"""Exceptions come back as their own class where it is imported, else as `RemoteError`; data makes no code run."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pickle
import sys
import time
import types
import urllib.error
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from perdure.core.ground.values import (
    INLINE_LIMIT,
    decode_error,
    describe_error,
    encode_error,
    logical_module,
    set_main_name,
    tame,
)
from perdure.core.ground.values import _names as names
from perdure.core.ground.values import _wire as wire
from perdure.errors import NonDeterminismError, PerdureError, RemoteError, TaskTimeoutError, ValueMismatchError

HERE = __name__
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Plain(Exception):
    pass


class Rich(Exception):
    """Its parameters are not its arguments, and building it has effects."""

    made = 0

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"code {code}: {reason}")
        type(self).made += 1
        self.code = code
        self.reason = reason
        self.handle = object()  # cannot be stored

    def __setattr__(self, name: str, value: object) -> None:
        if name == "reason" and not isinstance(value, str):
            raise TypeError
        super().__setattr__(name, value)


class Renewed(Exception):
    def __new__(cls, *args: Any) -> Renewed:
        return super().__new__(cls, *args)


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Strict(pydantic.BaseModel):
    a: int
    b: str = "x"


class Picky(pydantic.BaseModel):
    a: int = 1
    b: str = "x"

    @pydantic.field_validator("a")
    @classmethod
    def positive(cls, value: int) -> int:
        assert value > 0, "not positive, but asked for"
        return value

    @pydantic.field_validator("b")
    @classmethod
    def plain(cls, value: str) -> str:
        if value == "value":
            raise ValueError("no, not this")
        if value != "x":
            raise PydanticCustomError("mine", "it is {what}", {"what": value})
        return value


def refused_model(model: type[pydantic.BaseModel] = Strict, **values: Any) -> Exception:
    try:
        model(**values)
    except pydantic.ValidationError as error:
        return error
    raise AssertionError


class Outer:
    class Nested(Exception):
        pass


class OddGroup(ExceptionGroup[Exception]):
    def __new__(cls, message: str, members: list[Exception], code: int) -> OddGroup:
        made = super().__new__(cls, message, members)
        made.code = code
        return made

    code: int


def copy(exc: BaseException) -> BaseException:
    return decode_error(encode_error(exc))


def raised(exc: BaseException) -> BaseException:
    try:
        raise exc
    except BaseException as caught:
        return caught


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this module importable under the name that pytest gave it."""
    monkeypatch.setitem(sys.modules, HERE, types.ModuleType(HERE))
    vars(sys.modules[HERE]).update(globals())


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("x", 1, (2, b"3")), KeyError("k"), Plain(), Plain(None), Outer.Nested("n"), KeyboardInterrupt(),
        SystemExit(3), SystemExit(None), StopIteration(5), StopAsyncIteration(), asyncio.CancelledError("why"),
        OSError(2, "gone", "a", None, "b"), ConnectionResetError(104, "reset"), BlockingIOError(11, "x", 5),
        UnicodeDecodeError("utf-8", b"abc", 1, 2, "bad"), UnicodeEncodeError("ascii", "é", 0, 1, "bad"),
        ImportError("no", name="mod", path="/p"), AttributeError("no", name="attr"), NameError("no", name="n"),
        SyntaxError("bad", ("f.py", 1, 2, "text", 1, 3)), ExceptionGroup("g", [ValueError(1)]),
        BaseExceptionGroup("g", [KeyboardInterrupt(), ExceptionGroup("h", [Plain(2)])]),
        TaskTimeoutError("slow"), NonDeterminismError("m", expected="e", received="r"), Plain("\ud800"),
        Plain(float("inf"), 2**70, {1: (2,)}),
    ],
    ids=lambda exc: type(exc).__name__,
)  # fmt: skip
def test_an_exception_comes_back_as_it_was(exc: BaseException) -> None:
    again = copy(raised(exc))
    assert type(again) is type(exc)
    assert str(again) == str(exc)
    assert repr(again) == repr(exc)
    assert again.args == exc.args or isinstance(exc, BaseExceptionGroup)
    for name in ("errno", "filename", "filename2", "code", "value", "start", "object", "name", "path", "text", "lineno",
                 "expected", "received", "message", "end_offset", "characters_written"):  # fmt: skip
        assert hasattr(again, name) == hasattr(exc, name)
        assert getattr(again, name, None) == getattr(exc, name, None)
    assert encode_error(again)[:40] == encode_error(exc)[:40]


def test_an_exception_is_rebuilt_without_its_init_and_without_its_setattr() -> None:
    exc = Rich(4, reason="r")
    made = Rich.made
    again = copy(exc)
    assert isinstance(again, Rich)
    assert (str(again), again.code, again.reason) == ("code 4: r", 4, "r")
    assert not hasattr(again, "handle")
    assert Rich.made == made


def test_notes_are_kept() -> None:
    exc = Plain("x")
    exc.add_note("first")
    exc.add_note("second \ud800")
    assert copy(exc).__notes__ == ["first", "second \\ud800"]


def test_causes_contexts_and_suppression_are_kept() -> None:
    try:
        try:
            try:
                raise KeyError("deep")
            except KeyError:
                raise ValueError("middle")  # noqa: B904
        except ValueError as error:
            raise Plain("top") from error
    except Plain as error:
        again = copy(error)
    assert isinstance(again.__cause__, ValueError)
    assert again.__cause__ is again.__context__
    assert again.__suppress_context__
    assert isinstance(again.__cause__.__context__, KeyError)
    assert not again.__cause__.__suppress_context__
    silent = Plain()
    silent.__context__ = KeyError()
    silent.__suppress_context__ = True
    assert copy(silent).__suppress_context__
    assert copy(silent).__cause__ is None


def test_long_and_circular_chains_are_cut() -> None:
    first = exc = Plain(0)
    for number in range(1, 50):
        exc.__cause__ = Plain(number)
        exc = exc.__cause__
    depth, link = 0, copy(first)
    while link.__cause__ is not None:
        depth, link = depth + 1, link.__cause__
    assert depth == 10
    one, two = Plain(1), Plain(2)
    one.__cause__, two.__cause__ = two, one
    again = copy(one)
    assert again.__cause__ is not None
    assert again.__cause__.__cause__ is again


def test_groups_keep_their_members_and_shared_exceptions_stay_shared() -> None:
    shared = Plain("shared")
    group = ExceptionGroup("all", [shared, ExceptionGroup("some", [KeyError(1), shared])])
    group.add_note("n")
    again = copy(group)
    assert isinstance(again, ExceptionGroup)
    assert again.exceptions[0] is again.exceptions[1].exceptions[1]  # type: ignore[union-attr]
    assert again.__notes__ == ["n"]
    assert again.subgroup(KeyError) is not None


@pytest.mark.parametrize(
    "exc",
    [Renewed("x"), Slotted(3), Plain(object()), Plain(1, object(), "b"), OddGroup("g", [Plain(1)], 5),
     Plain(Rich(1, reason="r")), Plain("x" * 2_000_000), refused_model(), refused_model(Picky, a=-1),
     refused_model(Picky, a=object()), refused_model(Picky, b="{x} no"), refused_model(Picky, b="value")],
    ids=lambda exc: type(exc).__name__,
)  # fmt: skip
def test_an_exception_of_any_importable_class_and_with_any_arguments_comes_back_as_its_class(exc: Exception) -> None:
    """Code after a durable call tells failures apart by `except Class`: with a `__new__` or `__slots__` of the class's
    own, with arguments that cannot be stored, from a compiled module. Other members: the chains in `copy(copy())`."""
    again = copy(raised(exc))
    assert type(again) is type(exc)
    assert repr(copy(again)) == repr(again)
    assert str(copy(again)) == str(again)
    if "object object" not in str(exc) and len(str(exc)) < 1_000_000:
        assert str(again) == str(exc)
    for name in ("code", "title"):
        assert getattr(again, name, None) == getattr(exc, name, None)
    if hasattr(exc, "errors"):
        shown = [(error["type"], error["loc"], error["msg"]) for error in exc.errors()]
        assert [(error["type"], error["loc"], error["msg"]) for error in again.errors()] == shown  # type: ignore[attr-defined]


def test_a_class_inside_a_function_becomes_a_remote_error() -> None:
    class Local(Exception):
        pass

    again = copy(Local("x"))
    assert isinstance(again, RemoteError)
    assert again.type_name.endswith(".<locals>.Local")
    assert str(again).endswith("Local: x")


def test_a_remote_error_comes_back_as_itself() -> None:
    exc = RemoteError("a.B", "text", "Traceback ...")
    again = copy(copy(exc))
    assert type(again) is RemoteError
    assert (again.type_name, again.message, again.traceback_text) == ("a.B", "text", "Traceback ...")
    assert str(again) == "a.B: text"
    assert describe_error(encode_error(exc)) == ("a.B", "text", "Traceback ...")


def test_a_remote_member_of_a_group_stays_a_member() -> None:
    class Local(BaseException):
        pass

    again = copy(BaseExceptionGroup("g", [Local("x")]))
    assert isinstance(again, BaseExceptionGroup)
    assert isinstance(again.exceptions[0], RemoteError)


def test_an_exception_without_text_is_encoded_all_the_same() -> None:
    exc = raised(Mute("x"))
    assert type(copy(exc)) is Mute
    name, message, text = describe_error(encode_error(exc))
    assert (name, message) == (f"{HERE}.Mute", "<Mute whose str() raises RuntimeError>")
    assert "Mute" in text


def test_description_needs_no_class() -> None:
    class Local(Exception):
        pass

    name, message, text = describe_error(encode_error(raised(Local("x"))))
    assert name.endswith("Local")
    assert message == "x"
    assert text.startswith("Traceback (most recent call last)")
    assert text.endswith("Local: x\n")
    assert describe_error(encode_error(ValueError("v")))[:2] == ("ValueError", "v")


def test_tracebacks_hold_no_local_variables_and_keep_their_end() -> None:
    def deep(secret: str, level: int) -> None:
        if level % 2:
            deep(secret, level - 1)
        elif level:
            deep(secret=secret, level=level - 1)
        else:
            raise ValueError("é" * 9000)

    try:
        deep("hunter2", 200)
    except ValueError as error:
        _, message, text = describe_error(encode_error(error))
    assert "hunter2" not in text
    assert len(text.encode()) <= 16 * 1024
    assert text.endswith("éé\n")
    assert text.startswith("…")
    assert message == "é" * 9000


def test_the_bytes_stay_under_the_inline_limit() -> None:
    huge = "x" * (INLINE_LIMIT + 1)
    many = ExceptionGroup("g", [raised(Plain("y" * 100_000, number)) for number in range(300)])  # type: ignore[misc]
    chain = Plain("z" * 900_000)
    chain.__cause__ = many
    attribute = Plain("x")
    attribute.data = huge  # type: ignore[attr-defined]
    crowd = ExceptionGroup("g", [Plain("m" * 60_000) for _ in range(1000)])
    for exc in (Plain(huge), many, chain, attribute, crowd):
        encoded = encode_error(exc)
        assert len(encoded) <= INLINE_LIMIT
        assert decode_error(encoded)
    assert type(copy(Plain(huge))) is Plain
    assert type(copy(attribute)) is Plain
    assert not hasattr(copy(attribute), "data")
    group = copy(many)
    assert isinstance(group, ExceptionGroup)
    assert len(group.exceptions) == 300


def test_an_error_of_a_library_with_state_of_its_own() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    again = copy(caught.value)
    assert isinstance(again, json.JSONDecodeError)
    assert (str(again), again.pos, again.doc) == (str(caught.value), caught.value.pos, "{")
    url = urllib.error.URLError("refused")
    assert str(copy(url)) == str(url)


def test_a_dataclass_exception() -> None:
    assert isinstance(copy(Declared(3)), Declared)
    assert copy(Declared(3)).code == 3  # type: ignore[attr-defined]


@dataclasses.dataclass
class Declared(Exception):
    code: int


# ------------------------------------------------------------------------------------------------- hostile data


def forged(**changes: Any) -> bytes:
    node = {"module": "builtins", "name": "ValueError", "message": "m", "traceback": "", "args": (1,), "attributes": {}}
    return wire.encode([wire.dump_any({**node, **changes}, wire.Mode())])


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"), ("builtins", "eval"), ("builtins", "object"), ("subprocess", "Popen"), ("sys", "modules"),
        (HERE, "__dict__"), (HERE, "Outer"), ("antigravity", "X"), (HERE, "Plain.__class__"), (HERE, ""), ("", "x"),
        ("perdure.not_there", "Error"), (HERE, "Plain.with_traceback"),
    ],
)  # fmt: skip
def test_only_exception_classes_of_imported_modules_are_taken(module: str, name: str) -> None:
    """P11."""
    before = set(sys.modules)
    again = decode_error(forged(module=module, name=name))
    assert isinstance(again, RemoteError)
    assert set(sys.modules) == before


def test_looking_up_a_class_runs_no_code_of_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    lazy = types.ModuleType("lazy")
    lazy.__getattr__ = asked.append  # type: ignore[method-assign, assignment]
    monkeypatch.setitem(sys.modules, "lazy", lazy)
    assert isinstance(decode_error(forged(module="lazy", name="Error")), RemoteError)
    assert "Error" not in asked


def test_attributes_from_data_run_no_property() -> None:
    ran = []

    class Watched(Exception):
        @property
        def code(self) -> int:
            return 1

        @code.setter
        def code(self, value: int) -> None:
            ran.append(value)

    vars(sys.modules[HERE])["Watched"] = Watched
    again = decode_error(forged(module=HERE, name="Watched", attributes={"code": 5, "__class__": 3, "args": 7}))
    assert type(again) is Watched
    assert ran == []
    assert again.args == (1,)


@pytest.mark.parametrize(
    "changes",
    [
        {"module": 3}, {"name": None}, {"message": 5}, {"cause": 0}, {"cause": 7}, {"cause": "x"}, {"context": -1},
        {"members": [0], "name": "ExceptionGroup", "text": "g"}, {"notes": 3}, {"args": 3}, {"attributes": {1: 2}},
    ],
    ids=repr,
)  # fmt: skip
def test_corrupt_fields_are_a_clear_error_or_ignored(changes: dict[str, Any]) -> None:
    try:
        assert isinstance(decode_error(forged(**changes)), BaseException)
    except ValueMismatchError:
        pass


@PATIENT
@given(data=st.binary(max_size=60))
def test_corrupt_bytes_are_a_clear_error(data: bytes) -> None:
    for read in (decode_error, describe_error):
        with pytest.raises(ValueMismatchError):
            read(data)


def test_pickles_are_not_read() -> None:
    """P11."""
    with pytest.raises(PerdureError):
        decode_error(pickle.dumps(ValueError("x")))
    with pytest.raises(PerdureError):
        decode_error(msgspec.msgpack.encode({"type": "ValueError"}))


scalars = st.one_of(st.none(), st.integers(), st.text(), st.binary(), st.floats(allow_nan=False), st.booleans())


@PATIENT
@given(
    cls=st.sampled_from([ValueError, Plain, Outer.Nested, OSError, KeyError, TaskTimeoutError]),
    args=st.lists(st.one_of(scalars, st.lists(scalars).map(tuple)), max_size=4),
    attributes=st.dictionaries(st.text("abc", min_size=1, max_size=3), scalars, max_size=3),
)
def test_any_storable_exception_round_trips(cls: Any, args: list[Any], attributes: dict[str, Any]) -> None:
    try:
        exc = cls(*args)
    except TypeError:  # OSError wants a number first in places
        return
    exc.__dict__.update(attributes)
    again = copy(exc)
    assert type(again) is type(exc)
    assert again.args == exc.args
    assert vars(again) == vars(exc)
    assert repr(again) == repr(exc)


def test_a_lazily_loaded_module_is_not_executed() -> None:
    import importlib.util

    spec = importlib.util.find_spec("this")  # prints when it is executed
    assert spec is not None
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)  # type: ignore[arg-type]
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["this"] = module
    try:
        assert isinstance(decode_error(forged(module="this", name="Error")), RemoteError)
        assert type(module) is not types.ModuleType, "the module has been executed"
    finally:
        del sys.modules["this"]


def test_an_exception_whose_attributes_raise_is_encoded_all_the_same() -> None:
    class Broken(Exception):
        @property
        def __cause__(self) -> BaseException:  # type: ignore[override]
            raise RuntimeError

    name, message, _ = describe_error(encode_error(Broken("x")))
    assert name.endswith("Broken")
    assert message == "x"


# -------------------------------------------------------------------------------------------------- logical names


def test_classes_of_main_are_written_under_its_logical_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(Exception):
        pass

    Mine.__module__, Mine.__qualname__ = "__main__", "Mine"
    main = types.ModuleType("__main__")
    main.Mine = Mine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(names, "_main_name", None)
    assert logical_module("__main__") == "__main__"
    assert type(copy(Mine("x"))) is Mine

    set_main_name("demo")
    assert logical_module("__main__") == "demo"
    assert logical_module("other") == "other"
    encoded = encode_error(Mine("x"))
    assert describe_error(encoded)[0] == "demo.Mine"
    assert type(decode_error(encoded)) is Mine

    # Another process, where the file is imported as a module.
    monkeypatch.setattr(names, "_main_name", "worker")
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    assert type(decode_error(encoded)) is RemoteError
    demo = types.ModuleType("demo")
    demo.Mine = Mine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "demo", demo)
    assert type(decode_error(encoded)) is Mine


class Raising:
    """A descriptor that raises a given exception, in any way of reading."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __get__(self, instance: object, owner: object = None) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt, GeneratorExit, RecursionError])
@pytest.mark.parametrize(
    "name",
    ["__str__", "__repr__", "__class__", "__dict__", "__cause__", "__context__", "__traceback__", "__notes__", "args",
     "__getattribute__", "__suppress_context__", "exceptions", "message", "__module__"],
)  # fmt: skip
@pytest.mark.parametrize("base", [Exception, ExceptionGroup])
def test_an_exception_whose_class_misbehaves_is_a_typed_failure(
    base: type[Exception], name: str, error: type[BaseException]
) -> None:
    """An attribute of the class raises when it is read: the failure is recorded with the class's name, and the recorded
    failure can be shown, rebuilt and judged."""
    if base is Exception and name in ("exceptions", "message"):
        return
    early = name in ("__class__", "__dict__")
    cls = type("Odd", (base,), {name: Raising(error)} if early else {})
    exc = cls("text", [ValueError(1)]) if base is ExceptionGroup else cls("text")
    if not early:
        setattr(cls, name, Raising(error))
    shown = describe_error(encode_error(raised(exc)))
    assert shown[0].endswith("Odd")
    again = tame(exc)
    assert isinstance(again, Exception)
    if name != "__str__" or not issubclass(error, Exception):
        assert isinstance(str(again), str)
    assert type(again.__cause__) is type(None)


def test_an_ordinary_exception_is_left_alone() -> None:
    for exc in (ValueError("x"), Plain(object()), ExceptionGroup("g", [ValueError()]), Slotted(1), OSError(2, "x")):
        assert tame(exc) is exc


def test_the_traceback_of_a_deep_call_is_formatted_in_bounded_time() -> None:
    """Other members: a chain of exceptions, groups that share their members, and a call at the limit of the stack."""

    def deep(level: int) -> None:
        if level:
            deep(level - 1)
        else:
            raise ValueError("bottom")

    exc = raised_by(deep, 900)
    for _ in range(200):
        exc = raised_by(raise_from, exc)
    group: BaseException = exc
    for _ in range(60):
        group = BaseExceptionGroup("g", [group, group])
    began = time.thread_time()
    text = describe_error(encode_error(exc))[2]
    assert "frames are left out" in describe_error(encode_error(raised_by(deep, 900)))[2]
    assert text.endswith("KeyError: 'outer'\n")
    assert "and more" in describe_error(encode_error(group))[2]
    assert time.thread_time() - began < 3


def test_a_failure_at_the_limit_of_the_stack_keeps_its_traceback() -> None:
    def deep(level: int) -> bytes:
        try:
            return deep(level + 1)
        except RecursionError as error:
            if level > 600:
                raise
            return encode_error(error)

    name, message, text = describe_error(deep(0))
    assert (name, message[:7]) == ("RecursionError", "maximum")
    assert "in deep" in text


def raise_from(cause: BaseException) -> None:
    raise KeyError("outer") from cause


def raised_by(call: Any, *args: Any) -> BaseException:
    try:
        call(*args)
    except BaseException as error:
        return error
    raise AssertionError
