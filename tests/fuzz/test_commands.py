"""Command templates, pod templates and command lines of any kind: a result or a typed error, in bounded time.

Family: text that a user, a script or a file writes for perdure to interpret.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.budget import bounded, examples, kept

from perdure import runtime
from perdure.cli import entry
from perdure.cli.base import cli
from perdure.containers.copilot.templates import Template, TemplateValues
from perdure.containers.kubernetes.template import check_template, read_template
from perdure.errors import PerdureError, UsageError

AROUND = TemplateValues("/var/inputs", "/var/outputs", "attempt", "run", "action")
PIECES = st.sampled_from(
    ["{{", "}}", "{", "}", ".", "$", ".inputs.", ".Inputs.X", "x", "X", "straße", " ", "\n", ".inputPrefix", "\0", "a"]
)
ELEMENTS = st.lists(st.lists(PIECES, max_size=9).map("".join) | st.text(max_size=20), max_size=3)
LONG = st.builds(lambda part, count: [part * count], PIECES, st.integers(1, 50_000))


@kept("templates", "elements", lambda data: [data.decode()], value="{{.inputs.x}}")
@given(elements=ELEMENTS | LONG, value=st.text(max_size=20))
@examples(300)
def test_any_command_template_is_rendered_once_or_refused(elements: list[str], value: str) -> None:
    """A value is filled in as it is: nothing in the value is rendered again."""
    with bounded():
        try:
            words = Template(elements, ["x", "y"], "command").render({"x": value, "y": value}, AROUND)
        except UsageError as error:
            words, said = [], str(error)
        else:
            said = ""
    assert len(said) < 200_000
    if said:
        return
    assert len(words) == len(elements)
    for word, element in zip(words, elements, strict=True):
        if "{{" not in element:
            assert word == element


KEYS = st.sampled_from(
    ["spec", "metadata", "template", "containers", "initContainers", "volumes", "name", "image", "volumeMounts",
     "mountPath", "labels", "restartPolicy", "env", "apiVersion", "kind"]
) | st.integers(0, 3) | st.none()  # fmt: skip
DATA: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just("/var/inputs") | st.just("main"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)


@given(template=st.dictionaries(KEYS, DATA, max_size=4))
@examples(300)
def test_any_pod_template_is_taken_or_refused(template: dict[Any, Any]) -> None:
    judged(template)


@kept("pod_templates", "text", bytes.decode)
@given(text=st.text(st.sampled_from("{}[]&*:- \n!|>abspectempl0\"'"), max_size=60))
@examples(200)
def test_any_file_of_a_pod_template_is_taken_or_refused(text: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        judged(file.name)


def judged(source: Any) -> None:
    said = ""
    with bounded():
        try:
            check_template(read_template(source, "task 'x'"), "task 'x'", "/var/inputs", "/var/outputs")
        except UsageError as error:
            said = str(error)
    assert len(said) < 5_000


WORDS = st.sampled_from(
    ["ls", "show", "logs", "gc", "abort", "wake", "rerun", "resume", "report", "store", "check", "dump", "--json",
     "-q", "--limit", "--status", "--older-than", "--dry-run", "--recover", "--all", "--help", "--version", "--", "-",
     "", "r1", "../r1", "/etc/passwd", "30d", "1e999d", "-1", "99999999999999999999", "SUCCEEDED", "a\0b", "\ud800",
     "é" * 200]
)  # fmt: skip
NO_COMMANDS = {"run", "serve", "submit", "wait", "watch", "copilot", "completion"}
"""These load files, wait, or belong to shells and pods."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("project")
    (folder / "in").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "in")
        runtime.init("sqlite:///perdure.db")
        runtime.worker()
        yield folder
        runtime.init()


@kept("command_lines", "words", lambda data: data.decode().split("\n"))
@given(words=st.lists(WORDS, max_size=6))
@examples(150)
def test_any_command_line_ends_with_a_code_or_a_typed_error(place: Path, words: list[str]) -> None:
    """Nothing is written outside of the project."""
    assert entry.commands is not None
    if NO_COMMANDS.intersection(words):
        return
    out, error = io.StringIO(), io.StringIO()
    with bounded(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            cli.main(args=words, prog_name="perdure", standalone_mode=False)
        except (click.ClickException, PerdureError, SystemExit):
            pass
    assert os.listdir(place) == ["in"]


def test_the_corpus_lists_each_of_its_files() -> None:
    """Each kept input has a row in the README that says what broke, or which shape the input covers."""
    corpus = Path(__file__).with_name("corpus")
    listed = {line.split("`")[1] for line in (corpus / "README.md").read_text().splitlines() if line.startswith("| `")}
    there = {str(file.relative_to(corpus)) for file in corpus.rglob("*") if file.is_file() and file.name != "README.md"}
    assert listed == there
