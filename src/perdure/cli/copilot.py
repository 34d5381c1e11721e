"""`perdure copilot`: the helper beside a container in a pod on Kubernetes, not for people."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ..errors import PerdureError
from .base import CliCommand, CommandGroup, cli, signals


@cli.group("copilot", cls=CommandGroup, hidden=True)
def copilot_group() -> None:
    """Bring a container's inputs from a bucket, and take its outputs there. Runs in a pod on Kubernetes."""


@copilot_group.command(cls=CliCommand)
@click.argument("inputs")
@click.argument("to", type=click.Path(exists=True, file_okay=False))
@click.option("--blobs", required=True, metavar="URL", help="The bucket that holds the content of files.")
def download(inputs: str, to: str, blobs: str) -> None:
    """Bring the inputs at the URL INPUTS into the directory TO."""
    from ..containers.kubernetes import tree

    place, _, key = inputs.rpartition("/")
    with _told():
        count = tree.download(_objects(place), key, _objects(blobs), to)
        click.echo(f"{count} files are in {to}", err=True)


@copilot_group.command(cls=CliCommand)
@click.argument("directory", metavar="FROM", type=click.Path(exists=True, file_okay=False))
@click.argument("outputs")
@click.option("--ready", metavar="FILE", help="Made once SIGTERM is heard.")
def upload(directory: str, outputs: str, ready: str | None) -> None:
    """Wait for SIGTERM, then take the directory FROM to the URL OUTPUTS.

    A kubelet sends SIGTERM to sidecars when the main container has ended.
    """
    ended = threading.Event()
    signals.replace(lambda number, frame: ended.set())

    from ..containers.kubernetes import tree

    with _told():
        objects = _objects(outputs)
        # Written by an earlier sidecar that was told to end too early.
        objects.delete(tree.SUCCESS)
        if ready is not None:
            Path(ready).touch()
        ended.wait()
        count = tree.upload(directory, objects)
        click.echo(f"{count} files are at {outputs}", err=True)


@contextmanager
def _told() -> Iterator[None]:
    """Turn a failure into one line, which the cluster hands on as the reason."""
    try:
        yield
    except (PerdureError, OSError) as error:
        click.echo(" ".join(str(error).split()), err=True)
        sys.exit(1)


def _objects(url: str) -> Any:
    from ..store import open_bucket

    return open_bucket(url)
