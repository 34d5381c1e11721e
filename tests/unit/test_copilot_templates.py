"""Templates in commands: known placeholders become one value each, others are left alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.containers.copilot import Template, TemplateValues
from perdure.errors import UsageError

INPUTS = ["x", "long-name.v2", "Case", "Twin", "twin"]
TEXTS = {"x": "1", "long-name.v2": "two", "Case": "3", "Twin": "T", "twin": "t"}


def rendered(*elements: str, **texts: str) -> list[str]:
    return Template(elements, INPUTS, "command").render(
        {**TEXTS, **texts}, TemplateValues("/in", "/out", "7f3a", "nightly", "3")
    )


@pytest.mark.parametrize(
    ("element", "text"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{{.inputs.x}}", "1"),
        ("{{ .Inputs.x }}", "1"),
        ("{{\t.INPUTS.x\n}}", "1"),
        ("--x={{.inputs.x}},{{.inputs.x}};", "--x=1,1;"),
        ("{{.inputs.long-name.v2}}", "two"),
        ("{{.inputs.case}}", "3"),
        ("{{.inputs.twin}}{{.inputs.Twin}}", "tT"),
        ("{{.inputPrefix}}/f", "/in/f"),
        ("{{ .outputprefix }}", "/out"),
        ("{{.rawOutputDataPrefix}}", "/out"),
        ("{{.perRetryUniqueKey}}", "a7f3a"),
        ("{{ .PerRetryUniqueKey }}-{{.runName}}.{{.actionName}}", "a7f3a-nightly.3"),
        ("{{$input}}", "/in/inputs.pb"),
        ("{{.prevCheckpointPrefix}} {{.CheckpointOutputPrefix}}", '"" /out/_flytecheckpoints'),
        ("{{.outputs.x}} {{.State.Status}} {{.}}", "{{.outputs.x}} {{.State.Status}} {{.}}"),
        ("{{.inputs}} {{.inputs.X Y}} {{.inputPrefux}}", "{{.inputs}} {{.inputs.X Y}} {{.inputPrefux}}"),
        ("{{{.inputs.x}}}", "{1}"),
        ("{{inputs.x}} {{x}} {{ }} {.inputs.x} ${x}", "{{inputs.x}} {{x}} {{ }} {.inputs.x} ${x}"),
    ],
)
def test_an_element_is_rendered(element: str, text: str) -> None:
    assert rendered(element, "next") == [text, "next"]


@pytest.mark.parametrize(
    ("element", "said"),
    [
        ("{{.inputs.y}}", r"command\[1\]: \{\{\.inputs\.y\}\} .*declared are: x, long-name.v2"),
        ("{{.inputs.}}", "not declared"),
        ("{{.inputs.TWIN}}", "any of Twin, twin"),
    ],
)
def test_an_input_that_is_not_declared_is_refused_at_declaration(element: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Template(["sh", element], INPUTS, "command")


def test_without_inputs_it_says_so() -> None:
    with pytest.raises(UsageError, match="declared are: none"):
        Template(["{{.inputs.x}}"], [], "arguments")


@pytest.mark.parametrize("elements", ["echo hi", [1], ["echo", None], [b"echo"]])
def test_elements_are_strings(elements: Any) -> None:
    with pytest.raises(UsageError, match="string"):
        Template(elements, [], "command")


@given(st.text(st.characters(exclude_characters="\0")))
def test_a_value_is_put_in_as_it_is(text: str) -> None:
    assert rendered("a {{.inputs.x}}", x=text) == [f"a {text}"]


@pytest.mark.parametrize("text", ["{{.inputs.Case}}", "{{.inputPrefix}}", "}}{{", "\\1 $0 `id` $(id)", "a b\n'\""])
def test_a_value_is_never_parsed_again(text: str) -> None:
    assert rendered("{{.inputs.x}}{{.inputs.Case}}", "{{{{.inputs.x}}.inputs.x}}", x=text) == [
        f"{text}3",
        f"{{{{{text}.inputs.x}}}}",
    ]


def test_a_nul_is_refused() -> None:
    with pytest.raises(UsageError, match=r"command\[1\] would hold a NUL"):
        rendered("a", "{{.inputs.x}}", x="a\0b")
