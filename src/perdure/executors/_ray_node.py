"""The Ray task that starts a body's process on a node.

It travels by value, so that it runs, and can say what is missing, where perdure is not installed. Hence nothing but
the standard library here, and nothing at the level of this module but functions.
"""

from __future__ import annotations


def what_runs() -> str:
    """What has to be the same in the driving process and on a node."""
    import importlib
    import sys

    try:
        perdure = f"perdure {importlib.import_module('perdure').__version__}"
    except ImportError:
        perdure = "no perdure"
    return f"Python {sys.version_info[0]}.{sys.version_info[1]} with {perdure}"


def on_node(address: tuple[str, int], wanted: str, token: str, root: str, file: str, env_vars: dict[str, str]) -> int:
    """Have a process execute a body, connected to the one that drives the run. What the process ended with.

    Args:
        address: where the driving process listens.
        wanted: what has to run here (`what_runs`).
        token: what the process is known by there.
        root: the directory of the code, as the driving process calls it.
        file: the file of the body, under that.
        env_vars: the environment's.
    """
    import hashlib
    import json
    import os
    import socket
    import subprocess
    import sys

    runs = what_runs()
    # Not `os.getcwd()`: Ray unpacks the code anew where another node on this machine wants it, too, and what this
    # worker was started in is gone then.
    here = os.environ.get("PWD", root)
    if not os.path.exists(os.path.join(here, file)):
        here = root  # nothing was shipped; perhaps this machine sees the same files
    try:
        with open(os.path.join(here, file), "rb") as stream:
            digest = hashlib.blake2b(stream.read()).hexdigest()
    except OSError:
        digest = ""
    try:
        connection = socket.create_connection(address, timeout=30)
    except OSError as error:
        raise ConnectionError(f"this node does not reach {address[0]}:{address[1]}: {error}") from None
    with connection:
        connection.settimeout(None)
        connection.sendall(json.dumps({"token": token, "runs": runs, "digest": digest}).encode() + b"\n")
        if runs != wanted or not digest:
            connection.recv(1)  # until it has been heard, as a task that has ended is not listened to
            return 0
        number = connection.fileno()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "perdure.api.child", str(number), str(os.getpid()), root, here],
            pass_fds=[number], stdin=subprocess.DEVNULL, env={**os.environ, **env_vars}, cwd=here,
        )  # fmt: skip
    return process.wait()
