"""`inputs.json`, `inputs.yaml` and `inputs.pb`: all inputs in one file beside the single ones."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import Any, Literal

from perdure.containers.copilot.leaves import Leaf, write_json, write_text
from perdure.containers.copilot.placing import Placed
from perdure.containers.copilot.types import Listing, Reference, Table

MetadataFormat = Literal["JSON", "YAML", "PROTO"]


def metadata(inputs: Iterable[Placed], container_dir: str, format: MetadataFormat) -> bytes:
    """The content of the metadata file. `container_dir` is where the container sees its inputs."""
    if format == "PROTO":
        from perdure.containers.copilot.literals import literal_map

        return literal_map(inputs, container_dir)
    data = {item.path: plain(item, container_dir) for item in inputs}
    return write_json(data) + b"\n" if format == "JSON" else _yaml(data)


def plain(item: Placed, container_dir: str) -> Any:
    """A value as JSON has it; files and directories as their paths in the container."""
    match item.form:
        case Leaf():
            return item.form.dump(item.value)
        case Reference():
            return posixpath.join(container_dir, item.reference)
        case Listing():
            return [plain(child, container_dir) for child in item.items()]
        case Table():
            return {key: plain(child, container_dir) for key, child in item.children.items()}


def argument(item: Placed, container_dir: str) -> str:
    """The text that a template puts in place of an input.

    That of its file, for files and directories their path in the container, for what is no plain value its JSON.
    Bytes are written in base64: a command line cannot hold every byte.
    """
    if isinstance(item.form, Leaf) and item.form.kind not in ("bytes", "record"):
        return item.form.write(item.value).decode()
    data = plain(item, container_dir)
    return data if isinstance(data, str) else write_json(data).decode()


def _yaml(data: dict[str, Any]) -> bytes:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes all strings: YAML 1.2 parsers take some plain ones (`1e3`, `0o7`) for numbers that PyYAML does not."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))
    text = yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=2**31)
    return write_text(text)
