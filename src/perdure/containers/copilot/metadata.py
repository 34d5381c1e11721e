"""`inputs.json`, `inputs.yaml` and `inputs.pb`: all inputs in one file, beside a file for each."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

from perdure.containers.copilot.leaves import Leaf, write_json, write_text
from perdure.containers.copilot.names import METADATA_FILES
from perdure.containers.copilot.placing import Placed
from perdure.containers.copilot.types import Listing, Reference, Table
from perdure.errors import UsageError

MetadataFormat = Literal["JSON", "YAML", "PROTO"]


def metadata(inputs: Sequence[Placed], container_dir: str, format: MetadataFormat) -> dict[str, bytes]:
    """The metadata files by name. As in Flyte, `inputs.pb` is written beside every other format, if `flyteidl2` is
    installed and the inputs fit.

    Args:
        inputs: all inputs.
        container_dir: where the container sees the inputs.
        format: the format that the task declares.
    """
    from perdure.containers.copilot import literals

    found: dict[str, bytes] = {}
    if format == "PROTO":
        found[METADATA_FILES["PROTO"]] = literals.literal_map(inputs, container_dir)
        return found
    data = {item.path: plain(item, container_dir) for item in inputs}
    found[METADATA_FILES[format]] = write_json(data) + b"\n" if format == "JSON" else _yaml(data)
    if literals.is_installed():
        with suppress(UsageError):  # an integer of more than 64 bits, say, fits the declared format alone
            found[METADATA_FILES["PROTO"]] = literals.literal_map(inputs, container_dir)
    return found


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

    A plain value as in its file, a file or directory by the path in the container, all else as JSON. Bytes are written
    in base64: a command line cannot hold every byte.
    """
    if isinstance(item.form, Leaf) and item.form.kind not in ("bytes", "record"):
        return item.form.write(item.value).decode()
    data = plain(item, container_dir)
    return data if isinstance(data, str) else write_json(data).decode()


def _yaml(data: dict[str, Any]) -> bytes:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes all strings: YAML 1.2 parsers, unlike PyYAML, read some plain strings (`1e3`, `0o7`) as numbers."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))
    text = yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=2**31)
    return write_text(text)
