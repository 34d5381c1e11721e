"""Data frames of pandas, polars and pyarrow go through a journal as values: Parquet blobs, durable and immutable."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import msgspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest
from tests.integration.shell import Shell, last

import perdure
from perdure import runtime
from perdure.core.ground.values import ANY, Signature, codec_for, preview
from perdure.errors import StoreError, UsageError, ValueMismatchError
from perdure.io import DataFrame
from perdure.upkeep.collecting import collect

env = perdure.TaskEnvironment(name="frames")
cached_env = perdure.TaskEnvironment(name="cached_frames", cache=perdure.Cache(version_override="1"))
process_env = perdure.TaskEnvironment(name="process_frames", executor="process")

PANDAS = {
    "plain": pd.DataFrame({"n": [1, 2, 3], "x": [0.5, float("nan"), 2.0], "t": ["a", None, "ü"]}),
    "empty": pd.DataFrame({"n": pd.Series([], dtype="int64")}),
    "no columns": pd.DataFrame(),
    "index": pd.DataFrame({"v": [1.0, 2.0]}, index=pd.Index(["k1", "k2"], name="key")),
    "days": pd.DataFrame({"v": [1, 2]}, index=pd.date_range("2024-01-01", periods=2, tz="Europe/Berlin")),
    "levels": pd.DataFrame({"v": [1, 2]}, index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["l", "n"])),
    "category": pd.DataFrame({"c": pd.Categorical(["x", "y", "x"], categories=["y", "x"], ordered=True)}),
    "missing": pd.DataFrame({"i": pd.array([1, None], dtype="Int64"), "b": pd.array([True, None], dtype="boolean")}),
    "times": pd.DataFrame({"at": pd.to_datetime(["2024-01-01", None]), "d": pd.to_timedelta(["1D", None])}),
    "numbers for names": pd.DataFrame([[1, 2], [3, 4]], columns=[10, 20]),
}


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[Path]:
    perdure.init(store=tmp_path / "perdure.db")
    yield tmp_path
    perdure.init()


def pandas_frame() -> pd.DataFrame:
    return pd.DataFrame({"n": [1, 2, 3], "t": ["a", "b", "c"]})


FRAMES: list[Any] = [
    pandas_frame(), pl.DataFrame({"n": [1, 2, 3]}), pl.LazyFrame({"n": [1, 2, 3]}), pa.table({"n": [1, 2, 3]}),
]  # fmt: skip


def same(left: Any, right: Any) -> bool:
    """Whether two data frames hold the same."""
    if type(left) is not type(right):
        return False
    if isinstance(left, pd.DataFrame):
        pd.testing.assert_frame_equal(left, right, check_freq=False)
        return True
    if isinstance(left, pl.LazyFrame):
        return left.collect().equals(right.collect())
    return bool(left.equals(right))


# -- a value like any other ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PANDAS)
def test_a_pandas_frame_comes_back_with_index_and_types(name: str) -> None:
    frame = PANDAS[name]
    data, copy = codec_for(pd.DataFrame).roundtrip(frame)
    assert same(copy, frame)
    assert same(ANY.decode(ANY.encode(frame)), frame)
    assert len(data) < 150, "the journal holds a reference"


def test_attributes_of_a_pandas_frame_come_back() -> None:
    frame = pandas_frame()
    frame.attrs["unit"] = "kg"
    assert codec_for(pd.DataFrame).roundtrip(frame)[1].attrs == {"unit": "kg"}


@dataclasses.dataclass
class Record:
    frame: pd.DataFrame
    note: str = ""


class Pair(NamedTuple):
    left: pd.DataFrame
    right: pl.DataFrame


class Keyed(TypedDict):
    frame: pa.Table


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    frame: pd.DataFrame
    reference: DataFrame


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__module__)
def test_every_kind_of_frame_is_a_value_in_every_place(frame: Any) -> None:
    kind = type(frame)
    for annotation, value, part in (
        (kind, frame, lambda c: c), (kind | None, frame, lambda c: c), (list[kind], [frame], lambda c: c[0]),
        (dict[str, kind], {"k": frame}, lambda c: c["k"]), (tuple[int, kind], (1, frame), lambda c: c[1]),
        (kind | int, frame, lambda copy: copy), (Any, {"k": [frame]}, lambda c: c["k"][0]),
        (pd.DataFrame | pl.DataFrame | pl.LazyFrame | pa.Table, frame, lambda copy: copy),
    ):  # fmt: skip
        codec: Any = codec_for(annotation)
        data, copy = codec.roundtrip(value)
        assert same(part(copy), frame), annotation
        assert same(part(codec.decode(data)), frame), annotation
        assert "rows" in preview(data)


def test_frames_are_fields_of_records() -> None:
    frame, table = pandas_frame(), pa.table({"n": [1]})
    record: Record = codec_for(Record).roundtrip(Record(frame, "x"))[1]
    assert same(record.frame, frame)
    pair: Pair = codec_for(Pair).roundtrip(Pair(frame, pl.DataFrame({"n": [1]})))[1]
    assert same(pair.right, pl.DataFrame({"n": [1]}))
    keyed: Keyed = codec_for(Keyed).roundtrip({"frame": table})[1]
    assert same(keyed["frame"], table)
    model: Model = codec_for(Model).roundtrip(Model(frame=frame, reference=DataFrame.from_local(table)))[1]
    assert same(model.frame, frame)
    assert same(model.reference.load(), table)


def test_a_reference_loads_as_any_kind_and_only_when_asked() -> None:
    reference = DataFrame.from_local(pandas_frame())
    assert repr(reference) == f"DataFrame(pandas.DataFrame, 3 rows, 2 columns, hash='{reference.hash[:12]}…')"
    assert same(reference.load(), pandas_frame())
    assert reference.load(pl.DataFrame).to_dict(as_series=False) == pandas_frame().to_dict("list")
    assert isinstance(reference.load(pl.LazyFrame), pl.LazyFrame)
    assert reference.load(pa.Table).num_rows == 3
    assert pq.read_table(reference.path).num_rows == 3
    assert reference.file.path == reference.path
    assert pickle.loads(pickle.dumps(reference)) == reference
    with pytest.raises(AttributeError, match="a DataFrame never changes"):
        reference.rows = 4
    with pytest.raises(UsageError, match=r"but builtins\.dict is not known"):
        reference.load(dict)


def test_a_parquet_file_is_a_reference(tmp_path: Path) -> None:
    pandas_frame().to_parquet(tmp_path / "in.parquet")
    reference = DataFrame.from_local(tmp_path / "in.parquet")
    assert (reference.rows, reference.columns, reference.kind) == (3, 2, "")
    assert same(reference.load(pd.DataFrame), pandas_frame())
    with pytest.raises(UsageError, match="but no class is given"):
        reference.load()
    (tmp_path / "bad.parquet").write_text("no Parquet")
    with pytest.raises(UsageError, match="is no Parquet file"):
        DataFrame.from_local(tmp_path / "bad.parquet")


@pytest.mark.parametrize(
    ("annotation", "value", "words"),
    [
        (pd.DataFrame, pd.DataFrame({"a": [1, "x"]}), "Parquet cannot hold it: Could not convert 'x'"),
        (pd.DataFrame, pd.DataFrame([[1, 2]], columns=["a", "a"]), "Duplicate column names"),
        (pd.DataFrame, pd.DataFrame({"a": [object()]}), "Parquet cannot hold it"),
        (pd.DataFrame, pd.DataFrame([[1, 2]], columns=["a", 1]), "of several types: make all of them text"),
        (pl.DataFrame, pl.DataFrame({"a": [object()]}, schema={"a": pl.Object}), "Parquet cannot hold it"),
        (pd.DataFrame, pl.DataFrame({"a": [1]}), r"declared `pandas.DataFrame`.*`polars.DataFrame` would fit"),
        (pl.DataFrame, pd.DataFrame({"a": [1]}), r"declared `polars.DataFrame`.*`pandas.DataFrame` would fit"),
        (pd.DataFrame, {"a": [1]}, r"declared `pandas.DataFrame`, got a value of type `dict`"),
        (dict, pd.DataFrame({"a": [1]}), r"declared `dict`, got.*`pandas.DataFrame` would fit"),
        (DataFrame, {"a": [1]}, "declared `DataFrame`"),
        (Any, pd.DataFrame({"a": [1, "x"]}), "Parquet cannot hold it"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused_with_the_reason(annotation: Any, value: Any, words: str) -> None:
    """The family: what Parquet cannot hold, what would come back changed, and what is declared otherwise."""
    codec: Any = codec_for(annotation)
    for write in (codec.encode, codec.canonical):
        if annotation is pl.DataFrame and "Parquet" in words and write == codec.canonical:
            continue  # polars writes objects as Arrow
        with pytest.raises(ValueMismatchError, match=words):
            write(value)


# -- identity --------------------------------------------------------------------------------------------------------


def test_equal_frames_have_one_identity_on_every_way(tmp_path: Path) -> None:
    """F1. The family: the original, a copy from the journal, other chunks, a reference, the declared type or none."""

    def task(frame: pd.DataFrame, lazy: Any = None) -> None: ...

    def by_reference(frame: DataFrame, lazy: Any = None) -> None: ...

    identity = Signature.of(task).identity
    frame = pandas_frame()
    first = identity((frame,), {})
    assert identity((codec_for(pd.DataFrame).roundtrip(frame)[1],), {}) == first
    assert identity((DataFrame.from_local(frame),), {}) == first
    assert Signature.of(by_reference).identity((frame,), {}) == first
    assert identity((pd.concat([frame[:1], frame[1:]]),), {}) == first
    assert len(first) < 80
    many = pl.concat([pl.DataFrame({"n": [1]}), pl.DataFrame({"n": [2]})], rechunk=False)
    whole = pl.DataFrame({"n": [1, 2]})
    assert ANY.canonical(many) == ANY.canonical(whole)
    assert ANY.canonical(whole.lazy()) == ANY.canonical(whole)
    halves = pa.concat_tables([pa.table({"n": [1]}), pa.table({"n": [2]})])
    assert ANY.canonical(halves) == ANY.canonical(pa.table({"n": [1, 2]}))


def test_an_identity_stores_nothing(tmp_path: Path) -> None:
    ANY.canonical(pandas_frame())
    codec_for(pd.DataFrame).canonical(pandas_frame())
    assert not list(runtime.blobs().older(1 << 52))


def test_different_frames_have_different_identities() -> None:
    frame = pandas_frame()
    others = [
        frame.rename(columns={"n": "m"}), frame.assign(n=[1, 2, 4]), frame[["t", "n"]], frame.astype({"n": "float64"}),
        frame.set_index("t"), frame[:2], frame.assign(t=["a", "b", None]), pl.DataFrame(frame.to_dict("list")),
        pa.Table.from_pandas(frame), frame[::-1],
    ]  # fmt: skip
    identities = {ANY.canonical(one) for one in [frame, *others]}
    assert len(identities) == len(others) + 1


def test_the_version_of_a_library_is_not_in_the_identity() -> None:
    """F1: an upgrade between a crash and the resumption must not change which call is which."""
    table = pa.Table.from_pandas(pandas_frame())
    facts = json.loads(table.schema.metadata[b"pandas"])
    facts |= {"pandas_version": "9.9", "creator": {"library": "pyarrow", "version": "99"}}
    later = table.replace_schema_metadata({b"pandas": json.dumps(facts).encode()})
    assert ANY.canonical(later) == ANY.canonical(table)


# -- in runs ---------------------------------------------------------------------------------------------------------


@env.task
def double(frame: pd.DataFrame) -> pd.DataFrame:
    frame["n"] *= 2
    return frame


@env.task
def total(frame: pl.LazyFrame) -> int:
    return int(frame.select(pl.col("n").sum()).collect().item())


@env.task
def by_reference(frame: DataFrame) -> DataFrame:
    return frame


@env.task
def pipeline() -> int:
    frame = pandas_frame()
    twice = double(frame)
    assert list(frame["n"]) == [1, 2, 3], "the task has a copy"
    return total(by_reference(twice))


def test_a_pipeline_passes_frames_and_references() -> None:
    run = perdure.run(pipeline)
    assert run.outputs() == (12,)
    assert perdure.run(double, pandas_frame()).outputs()[0]["n"].tolist() == [2, 4, 6]


seen: list[int] = []


@cached_env.task
def counted(frame: pd.DataFrame) -> pd.DataFrame:
    seen.append(len(frame))
    return frame


@env.task
def calls_thrice() -> None:
    for _ in range(2):
        assert same(counted(pandas_frame()), pandas_frame())
    counted(pandas_frame()[:2])


def test_equal_frames_hit_the_cache() -> None:
    seen.clear()
    perdure.run(calls_thrice)
    assert seen == [3, 2]
    perdure.run(calls_thrice)
    assert seen == [3, 2]


@process_env.task
def in_a_process(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col("n") + 1)


def test_frames_go_to_other_processes_and_back() -> None:
    result = perdure.run(in_a_process, pl.DataFrame({"n": [1, 2]})).outputs()[0]
    assert result["n"].to_list() == [2, 3]


def test_a_missing_content_leaves_the_run_interrupted(shell: Shell) -> None:
    """The content is gone: the run must not take that for a failure of the step, and no new effect happens."""
    shell.write("wf.py", FLOW)
    process = shell.start("run", "wf.py", "main", "--name", "x", "--s", "60")
    shell.until_logged("add10")
    shell.until_it_sleeps("x")
    process.kill()
    process.wait()
    blobs = shell.path / ".perdure" / "perdure.db-blobs"
    moved = blobs if blobs.exists() else next((shell.path / ".perdure").glob("*blobs*"))
    moved.rename(moved.with_name("aside"))
    done = shell("resume", "x")
    assert done.returncode != 0
    assert "missing" in done.stderr
    assert "Traceback" not in done.stderr
    [run] = shell.json("ls")
    assert run["status"] in ("INTERRUPTED", "SLEEPING")
    assert shell.log().count("refund") == 0


FLOW = """
    import pandas as pd, perdure
    from perdure.extras import durable_sleep
    env = perdure.TaskEnvironment(name="f")

    def log(word):
        with open("log", "a") as file:
            file.write(word + "\\n")

    @perdure.trace
    def fetch(n: int) -> pd.DataFrame:
        log(f"fetch{n}")
        return pd.DataFrame({"n": [n, n + 1]})

    @env.task
    def add(frame: pd.DataFrame, by: int) -> pd.DataFrame:
        log(f"add{by}")
        return frame + by

    @env.task
    def main(s: float = 1) -> pd.DataFrame:
        try:
            frame = add(fetch(1), 10)
        except Exception:
            log("refund")
            raise
        durable_sleep(s)
        return add(frame, 100)

    @env.task
    def shape(frame: pd.DataFrame) -> list[int]:
        return list(frame.shape)
"""


def test_a_killed_run_reads_the_same_frames_and_carries_on(shell: Shell) -> None:
    """F2: no reference is recorded before its content."""
    shell.write("wf.py", FLOW)
    process = shell.start("run", "wf.py", "main", "--name", "x", "--s", "5")
    shell.until_logged("add10")
    shell.until_it_sleeps("x")
    process.kill()
    process.wait()
    done = shell("resume", "x")
    assert done.returncode == 0, done.stderr
    assert shell.log() == ["fetch1", "add10", "add100"]
    assert "111" in done.stdout
    assert shell.json("show", "x")["outcome"]["rows"] == 2
    assert "pandas.DataFrame, 2 rows, 1 columns" in shell("show", "x").stdout


def test_the_command_reads_parquet_files_and_names_the_result(shell: Shell) -> None:
    shell.write("wf.py", FLOW)
    pandas_frame()[["n"]].to_parquet(shell.path / "in.parquet")
    assert shell.json("run", "wf.py", "shape", "--frame", "in.parquet")["result"] == [3, 1]
    result = shell.json("run", "wf.py", "add", "--frame", "in.parquet", "--by", "5")["result"]
    assert (result["kind"], result["rows"], result["columns"]) == ("pandas.DataFrame", 3, 1)
    assert pd.read_parquet(result["path"])["n"].tolist() == [6, 7, 8]
    done = shell("run", "wf.py", "shape", "--frame", "wf.py")
    assert "no Parquet file" in done.stderr
    assert "PARQUET_FILE" in shell("run", "wf.py", "shape", "--help").stdout


def test_collection_keeps_the_frames_of_recorded_runs_only(store: Path) -> None:
    run = perdure.run(double, pandas_frame())
    kept = {hash for hash, _ in runtime.blobs().older(1 << 52)}
    DataFrame.from_local(pl.DataFrame({"lost": [1]}))
    then = time.time() - 3 * 24 * 3600
    for path in (Path(runtime.blobs().root) / "sha256").rglob("*"):
        os.utime(path, (then, then))
    assert collect(timedelta(days=1)).blobs == 1
    assert {hash for hash, _ in runtime.blobs().older(1 << 52)} == kept
    assert same(run.outputs()[0], pandas_frame().assign(n=[2, 4, 6]))


def test_damaged_content_is_named() -> None:
    data, _ = codec_for(pd.DataFrame).roundtrip(pandas_frame())
    reference: DataFrame = codec_for(DataFrame).decode(data)
    [found] = [hash for hash, _ in runtime.blobs().older(1 << 52)]
    assert found == reference.hash
    runtime.blobs().remove([found], 1 << 60)
    with pytest.raises(StoreError, match=found[:12]):
        codec_for(pd.DataFrame).decode(data)


@pytest.mark.parametrize("missing", ["pyarrow", "pandas"])
def test_a_missing_library_is_named_with_the_remedy(missing: str, tmp_path: Path) -> None:
    """perdure needs none of the libraries; the message names the package where a data frame needs one."""
    script = f"""
import sys
sys.modules[{missing!r}] = None  # as where the package is not installed
import perdure, perdure.io
from perdure.core.ground.values import codec_for
perdure.init(store={str(tmp_path / "perdure.db")!r})
if {missing!r} == "pandas":
    import polars
    perdure.io.DataFrame.from_local(polars.DataFrame({{"a": [1]}})).load()
    kind = perdure.io.DataFrame.from_local({str(tmp_path / "in.parquet")!r})
    import perdure.api.files.frame as frame
    frame._KINDS["pandas.DataFrame"].read(kind.path)
else:
    import pandas
    codec_for(pandas.DataFrame).encode(pandas.DataFrame({{"a": [1]}}))
"""
    pandas_frame().to_parquet(tmp_path / "in.parquet")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert f"needs the package {missing}: pip install {missing}" in last(done.stderr)


def test_importing_perdure_imports_no_library_of_frames() -> None:
    script = "import sys, perdure, perdure.io; print([m for m in ('pandas', 'polars', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_bytes_from_outside_load_nothing_that_they_do_not_name() -> None:
    """The family: fields that are missing, of other types, too short, another data frame inside, an unknown form."""
    encode = msgspec.msgpack.Encoder().encode
    data = ANY.encode(pandas_frame())
    reference: DataFrame = codec_for(DataFrame).decode(
        codec_for(DataFrame).encode(DataFrame.from_local(pandas_frame()))
    )
    good = [bytes.fromhex(reference.hash), reference.size, reference.content, reference.kind, 3, 2]
    inner = msgspec.msgpack.Ext(19, encode(good))
    bad: list[Any] = [
        good[:5], [*good, 1], [*good[:3], "none.DataFrame", 3, 2], [*good[:4], inner, 2], [b"short", *good[1:]],
        [*good[:2], b"short", *good[3:]], [*good[:3], inner, 3, 2], {"hash": good[0]}, [1, 2, 3, 4, 5, 6],
    ]  # fmt: skip
    for fields in bad:
        for code in (18, 19):
            damaged = encode(msgspec.msgpack.Ext(code, encode(fields)))
            with pytest.raises(ValueMismatchError):
                ANY.decode(damaged)
            assert len(preview(damaged)) <= 200
    assert same(ANY.decode(data), pandas_frame())
    for unknown in (["no.form", 1], ["no.form"], 3, []):
        damaged = encode(msgspec.msgpack.Ext(20, encode(unknown)))
        with pytest.raises(ValueMismatchError):
            ANY.decode(damaged)
        assert len(preview(damaged)) <= 200
