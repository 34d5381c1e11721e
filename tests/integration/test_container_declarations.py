"""What a container task's declaration refuses, in one clear message that names the thing."""

from __future__ import annotations

from typing import Any

import pytest

import perdure
from perdure.errors import UnsupportedTypeError, UsageError
from perdure.extras import ContainerTask


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "a b"}, "name must be letters"),
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
        ({"secrets": "KEY"}, "secrets must be a list"),
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
def test_what_makes_no_sense(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ContainerTask(**{"name": "a", "image": "x", **settings})


@pytest.mark.parametrize("kind", [tuple, object, set[int], Any])
def test_types_that_cannot_cross(kind: Any) -> None:
    with pytest.raises(UnsupportedTypeError, match="input 'x'"):
        ContainerTask(name="a", image="x", inputs={"x": kind})


@pytest.mark.parametrize(
    "settings", [{"cpu": 0}, {"cpu": "half"}, {"memory": "512Q"}, {"memory": 0}, {"gpu": -1}, {"shm": "much"}]
)
def test_resources(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"Resources: {next(iter(settings))} must be"):
        perdure.Resources(**settings)


def test_environments_and_overrides() -> None:
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
