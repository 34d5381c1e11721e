"""Declarations of container tasks: Flyte's meaning of each setting, and one clear message for each mistake."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

import perdure
from perdure.api.loading import load_file, spec_of_loaded
from perdure.errors import UnsupportedTypeError, UsageError
from perdure.extras import ContainerTask


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "a b"}, "name must be letters"),
        ({"name": ".a"}, "name must be letters"),
        ({"name": "a/b"}, "name must be letters"),
        ({"name": "9a"}, "name must be letters"),
        ({"image": ""}, "an image is named like"),
        ({"image": "two words"}, "an image is named like"),
        ({"command": "echo hi"}, "command must be a list"),
        ({"command": ["echo", 3]}, r"command\[1\] is 3, not a string"),
        ({"arguments": ["{{.inputs.y}}"], "inputs": {"x": int}}, r"arguments\[0\]: .* not declared; declared are: x"),
        ({"entrypoint": "sh"}, "entrypoint must be a list"),
        ({"outputs": {"../x": int}}, "'../x' among its outputs cannot name"),
        ({"inputs": {"class": int}}, "'class' among its inputs cannot name"),
        ({"outputs": ["x"]}, "outputs must map names to types"),
        ({"resources": {"cpu": 1}}, "resources must be a perdure.Resources"),
        ({"secrets": 3}, "secrets must be a list"),
        ({"speed": 1}, "there is no setting speed"),
        ({"secrets": ["a.b"]}, "cannot name an environment variable"),
        ({"env_vars": {"A": 1}}, "'A' does not"),
        ({"env_vars": ["A"]}, "env_vars must map"),
        ({"user": 1000}, "user must be text"),
        ({"retries": -1}, "retries must be"),
        ({"timeout": 0}, "timeout must be"),
        ({"cache": "yes"}, "cache must be"),
        ({"pull": "often"}, "pull must be"),
        ({"metadata_format": "json"}, "metadata_format must be one of"),
        ({"file_input_layout": "FLAT"}, "file_input_layout must be"),
        ({"input_data_dir": "in"}, "input_data_dir must be an absolute path"),
        ({"input_data_dir": "/data", "output_data_dir": "/data/out"}, "within one another"),
    ],
)
def test_a_setting_without_a_meaning_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ContainerTask(**{"name": "a", "image": "x", **settings})


@pytest.mark.parametrize("kind", [tuple, object, set[int], Any])
def test_a_type_that_cannot_cross_is_refused(kind: Any) -> None:
    with pytest.raises(UnsupportedTypeError, match="input 'x'"):
        ContainerTask(name="a", image="x", inputs={"x": kind})


@pytest.mark.parametrize(
    "settings", [{"cpu": 0}, {"cpu": "half"}, {"memory": "512Q"}, {"memory": 0}, {"gpu": -1}, {"shm": "much"}]
)
def test_resources_without_a_meaning_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"Resources: {next(iter(settings))} must be"):
        perdure.Resources(**settings)


def test_an_override_keeps_the_environment() -> None:
    task = ContainerTask(name="a", image="x", timeout=5)
    perdure.TaskEnvironment.from_task("one", task)
    assert task.name == task.spec.name == "one.a"
    other = task.override(timeout=7, retries=2)
    assert (other.name, other.spec.timeout, other.spec.retries.count, task.spec.timeout) == ("one.a", 7.0, 2, 5.0)
    with pytest.raises(UsageError, match="override has no setting speed"):
        task.override(speed=1)
    with pytest.raises(UsageError, match=r"a task of environment one already"):
        perdure.TaskEnvironment.from_task("two", task)
    with pytest.raises(UsageError, match="from_task takes container tasks"):
        perdure.TaskEnvironment.from_task("two", 3)  # type: ignore[arg-type]


def test_positional_arguments_have_flytes_order() -> None:
    """(name, image, command, inputs, arguments, outputs, input_data_dir, output_data_dir, metadata_format, local_logs,
    file_input_layout), as `inspect.signature` of Flyte 2.12's ContainerTask gives them."""
    task = ContainerTask(
        "my.task", "alpine:3.20", ["a", "{{.inputs.x}}"], {"x": int}, ["b"], {"y": str}, "/in", "/out", "YAML", False,
        "NAMED_DIR",
    )  # fmt: skip
    program = task.program
    assert (program.input_dir, program.output_dir, program.local_logs) == ("/in", "/out", False)
    assert (program.interface.metadata_format, program.interface.layout) == ("YAML", "NAMED_DIR")
    assert program.rendered({"x": "7"}) == (None, ("a", "7", "b"))
    assert list(program.interface.outputs) == ["y"]


@pytest.mark.parametrize(
    ("settings", "entrypoint", "arguments"),
    [
        ({}, None, None),
        ({"command": ["a"]}, None, ("a",)),
        ({"arguments": ["b"]}, None, ("b",)),
        ({"command": ["a"], "arguments": ["b"]}, None, ("a", "b")),
        ({"command": []}, None, ()),
        ({"entrypoint": ["sh", "-c"]}, ("sh", "-c"), ()),
        ({"entrypoint": ["sh", "-c"], "command": ["a"], "arguments": ["b"]}, ("sh", "-c"), ("a", "b")),
        ({"entrypoint": [], "command": ["a"]}, (), ("a",)),
    ],
)
def test_command_and_arguments_follow_the_entrypoint(
    settings: dict[str, Any], entrypoint: tuple[str, ...] | None, arguments: tuple[str, ...] | None
) -> None:
    """Local Flyte passes both to the engine as the command, so that the image's ENTRYPOINT stays."""
    assert ContainerTask("a", "x", **settings).program.rendered({}) == (entrypoint, arguments)


@pytest.mark.parametrize("name", ["my.task", "_x", "a-b.c_d", "T1"])
def test_a_name_may_hold_dots_and_dashes(name: str) -> None:
    task = ContainerTask(name, "x", outputs={"a": int, "b": int})
    perdure.TaskEnvironment.from_task("env", task)
    assert task.name == f"env.{name}"
    assert task.program.slug.strip("-") == task.program.slug != ""


def test_data_directories_may_be_paths() -> None:
    program = ContainerTask("a", "x", input_data_dir=PurePosixPath("/in/"), output_data_dir=Path("/o/../out")).program
    assert (program.input_dir, program.output_dir) == ("/in", "/out")


@pytest.mark.parametrize("image", ["auto", perdure.Image.from_base("auto")])
def test_the_image_auto_is_flytes_default(image: Any) -> None:
    """Local Flyte 2.12.1 on Python 3.11 pulls ghcr.io/flyteorg/flyte:py3.11-v2.12.1."""
    version = f"py{sys.version_info.major}.{sys.version_info.minor}"
    assert ContainerTask("a", image).program.image == f"ghcr.io/flyteorg/flyte:{version}-v2.12.1"


@pytest.mark.parametrize(
    ("secret", "variable", "path"),
    [
        (perdure.Secret("api_key"), "API_KEY", None),
        (perdure.Secret("api-key", "prod"), "PROD_API_KEY", None),
        (perdure.Secret("my-openai-key", as_env_var="OPENAI_API_KEY"), "OPENAI_API_KEY", None),
        (perdure.Secret("a.b", as_env_var="lower"), "lower", None),
        (perdure.Secret("token", mount="/run/token"), "TOKEN", "/run/token"),
        (perdure.Secret("token", "prod", PurePosixPath("/etc/flyte/secrets")), "PROD_TOKEN",
         "/etc/flyte/secrets/prod/token"),
    ],
)  # fmt: skip
def test_a_secret_has_flytes_variable(secret: Any, variable: str, path: str | None) -> None:
    assert (secret.variable, secret.path) == (variable, path)


@pytest.mark.parametrize(
    ("secret", "variable"),
    [
        (perdure.Secret("api_key"), "api_key"),
        (perdure.Secret("api_key"), "API_KEY"),
        (perdure.Secret("api_key", "prod"), "PROD_API_KEY"),
        (perdure.Secret("key", as_env_var="OPENAI_API_KEY"), "OPENAI_API_KEY"),
        (perdure.Secret("key", as_env_var="OPENAI_API_KEY"), "KEY"),
    ],
)
def test_a_secret_is_read_from_the_environment(secret: Any, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "value")
    assert secret.read("task a") == b"value"
    monkeypatch.delenv(variable)
    with pytest.raises(UsageError, match=f"set the environment variable .*{variable}"):
        secret.read("task a")


@pytest.mark.parametrize("secrets", ["API_KEY", perdure.Secret("api_key"), ["api_key"], (perdure.Secret("api_key"),)])
def test_a_single_secret_needs_no_list(secrets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "value")
    assert ContainerTask("a", "x", secrets=secrets).program.secrets().env == {"API_KEY": "value"}


@pytest.mark.parametrize("group", ["", "/run/secret", "a/b", 3])
def test_a_file_is_not_taken_for_a_group(group: Any) -> None:
    with pytest.raises(UsageError, match="group"):
        perdure.Secret("key", group)


TWINS = """
import perdure
from perdure.extras import ContainerTask

one = ContainerTask("fetch", "image:1", ["one"])
two = ContainerTask("fetch", "image:2", ["two"])
"""


def loaded(tmp_path: Path, text: str) -> Any:
    (tmp_path / "flows.py").write_text(text)
    return load_file(str(tmp_path / "flows.py"))


def test_two_container_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    """The identity in the journal is the full declared name: a replay would give the outcome of the other program."""
    with pytest.raises(UsageError, match=r"two tasks are called env\.fetch"):
        loaded(tmp_path, TWINS + "perdure.TaskEnvironment.from_task('env', one, two)")


def test_equal_names_in_two_environments_are_two_identities(tmp_path: Path) -> None:
    module = loaded(
        tmp_path,
        TWINS + "perdure.TaskEnvironment.from_task('a', one)\nperdure.TaskEnvironment.from_task('b', two)\n"
        "slower = one.override(timeout=9)\n",
    )
    assert [module.one.spec.qualified(), module.two.spec.qualified()] == ["a.fetch", "b.fetch"]
    assert module.slower.spec.qualified() == "a.fetch"
    assert module.one.spec.target() == f"{tmp_path}/flows.py::flows::a.fetch"
    assert spec_of_loaded(module.two.spec.target()) is module.two.spec


def test_a_container_task_and_a_function_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"two tasks are called env\.fetch"):
        loaded(
            tmp_path,
            "import perdure\nfrom perdure.extras import ContainerTask\nenv = perdure.TaskEnvironment('env')\n"
            "@env.task\ndef fetch() -> int: return 1\n"
            "perdure.TaskEnvironment.from_task('env', ContainerTask('fetch', 'image'))\n",
        )
