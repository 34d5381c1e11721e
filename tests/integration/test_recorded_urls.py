"""P11: a `file://` URL in a recorded value is read only below directories that the process was given.

The kind: data that names a place on the machine of the process that reads the data. Members here: inputs of a queued
run, results of earlier steps, the entries of a directory's manifest; opened, downloaded, as a path, staged for a
container; a link, `..`, a doubled slash and a directory of a similar name lead around a check of the text alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.shell import Shell

import perdure
from perdure import runtime
from perdure.api.container_files import ContainerFiles
from perdure.api.files.places import VARIABLE
from perdure.containers.copilot import Interface
from perdure.errors import UsageError
from perdure.io import Dir, File
from perdure.store import remote_objects

WORKFLOW = """
import sys
import perdure

env = perdure.TaskEnvironment(name="e")
far = perdure.TaskEnvironment(name="far", executor="process")

@env.task
def read(file: perdure.io.File) -> str:
    try:
        with file.open("r") as text:
            return text.read()
    except Exception as error:
        return f"refund because of {type(error).__name__}"

@env.task
def read_all(folder: perdure.io.Dir) -> str:
    return ",".join(sorted(file.open("r").read() for file in folder.files().values()))

@far.task
def read_far(file: perdure.io.File) -> str:
    return file.open("r").read()

@env.task
def names_it(url: str, then: str) -> str:
    file = perdure.io.File.from_existing_remote(url)
    return read_far(file) if then == "far" else read(file)
"""


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "home" / "secret"
    path.parent.mkdir()
    path.write_text("key")
    return path


def recorded(path: str, kind: type[Any] = File) -> Any:
    """The value as a stranger records it, who knows the state of the file."""
    remote = remote_objects()
    if kind is Dir:
        return _listing(path)
    found = remote.look(f"file://{os.path.realpath(path)}")
    return File(name="x", hash="", size=found.size, url=f"file://{path}", etag=found.etag)


def _listing(path: str) -> Dir:
    from perdure.api.files import folder

    entries = folder._listed(f"file://{path}")
    return folder._made("d", entries, f"file://{path}")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv(VARIABLE, "")
    perdure.init(store=project / ".perdure" / "perdure.db")
    yield project
    perdure.init()


@pytest.mark.parametrize("how", ["run", "read_all", "read_far"])
def test_a_run_that_reads_such_a_url_stops_and_goes_on_where_the_directory_is_given(
    here: Path, secret: Path, how: str
) -> None:
    """The body cannot take the refusal for a failed step, and the run stays INTERRUPTED."""
    shell = Shell(here)
    shell.write("wf.py", WORKFLOW)
    sys.path.insert(0, str(here))
    task, kind = {"run": ("read", File), "read_all": ("read_all", Dir), "read_far": ("read_far", File)}[how]
    given = recorded(str(secret if kind is File else secret.parent), kind)
    from perdure.api.loading import find_task

    found = find_task(str(here / "wf.py"), task)
    try:
        with pytest.raises(UsageError, match=f"lies below no directory.*set {VARIABLE}={secret.parent} and continue"):
            perdure.with_runcontext(name="r").run(found, given)
        assert perdure.Run.get("r").status.name == "INTERRUPTED"
    finally:
        sys.path.remove(str(here))
        sys.modules.pop("wf", None)
    refused = shell("resume", "r")
    assert refused.returncode == 2
    assert f"set {VARIABLE}={secret.parent} and continue" in refused.stderr
    assert "key" not in refused.stdout + refused.stderr
    shell.env[VARIABLE] = f"/nowhere{os.pathsep}{secret.parent}"
    assert shell("resume", "r").stdout == "key\n"


def test_a_url_that_the_code_names_is_read_also_in_a_pool_child_and_on_resume(here: Path, secret: Path) -> None:
    shell = Shell(here)
    shell.write("wf.py", WORKFLOW)
    for then in ("near", "far"):
        done = shell("run", "wf.py", "names_it", "--url", f"file://{secret}", "--then", then)
        assert (done.returncode, done.stdout) == (0, "key\n"), done.stderr
    assert shell("run", "wf.py", "read", "--file", f"file://{secret}").stdout == "key\n"


USES: dict[str, Callable[[File], object]] = {
    "open": lambda file: file.open(),
    "path": lambda file: file.path,
    "download": lambda file: file.download(),
    "container": lambda file: Interface({"x": File}, {}, files=ContainerFiles()).stage({"x": file}, "../stage", "/in"),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("way", ["plain", "link", "linked directory", "dots", "slashes", "similar name", "proc"])
def test_no_way_leads_to_a_file_outside_of_given_directories(
    here: Path, secret: Path, monkeypatch: pytest.MonkeyPatch, use: str, way: str
) -> None:
    given = here.parent / "given"
    given.mkdir()
    monkeypatch.setenv(VARIABLE, str(given))
    path = str(secret)
    match way:
        case "link":
            (here / "link").symlink_to(secret)
            path = str(here / "link")
        case "linked directory":
            (given / "down").symlink_to(secret.parent)
            path = str(given / "down" / "secret")
        case "dots":
            path = f"{given}/../home/secret"
        case "slashes":
            path = f"/{secret}"
        case "similar name":
            (here.parent / "given-not").mkdir()
            path = str(here.parent / "given-not" / "secret")
            Path(path).write_text("key")
        case "proc":
            path = "/proc/self/environ"
    with pytest.raises(UsageError, match="lies below no directory that this process was given"):
        USES[use](recorded(path))
    assert runtime.project_root() == str(here)


@pytest.mark.parametrize("where", ["project", "given", "beside a named file", "below a named directory", "blobs"])
def test_files_below_given_directories_are_read(
    here: Path, secret: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = secret
    match where:
        case "project":
            path = here / "data"
            path.write_text("key")
        case "given":
            monkeypatch.setenv(VARIABLE, str(secret.parent.parent))
        case "beside a named file":
            (secret.parent / "other").touch()
            File.from_existing_remote(f"file://{secret.parent}/other")
        case "below a named directory":
            Dir.from_existing_remote(f"file://{secret.parent}")
        case "blobs":
            perdure.init(blobs=f"file://{secret.parent}")
    with recorded(str(path)).open("r") as text:
        assert text.read() == "key"


def test_a_named_file_in_the_top_directory_gives_no_other(here: Path) -> None:
    from perdure.api.files.places import name_place, refuse_foreign_place

    name_place("file:///no-such-file")
    with pytest.raises(UsageError, match="lies below no directory"):
        refuse_foreign_place("file:///etc/passwd")
    refuse_foreign_place("file:///no-such-file")
