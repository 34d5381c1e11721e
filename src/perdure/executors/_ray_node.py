"""The Ray task that starts a body's process on a node.

The task travels by value, so that a node without perdure can run the task and report the missing package. Hence only
the standard library, and only functions at module level.
"""

from __future__ import annotations


def what_runs() -> str:
    """The versions that must be equal in the driving process and on a node."""
    import importlib
    import sys

    try:
        perdure = f"perdure {importlib.import_module('perdure').__version__}"
    except ImportError:
        perdure = "no perdure"
    return f"Python {sys.version_info[0]}.{sys.version_info[1]} with {perdure}"


def on_node(address: tuple[str, int], wanted: str, token: str, root: str, file: str, env_vars: dict[str, str]) -> int:
    """Start a process for a body, connected to the driving process. Gives the exit status of the process.

    Args:
        address: where the driving process listens.
        wanted: the versions that must run here (`what_runs`).
        token: identifies the process to the driving process, which reads the token before anything else.
        root: the directory of the code, as the driving process calls it.
        file: the file of the body, below `root`.
        env_vars: environment variables of the environment.
    """
    import hashlib
    import json
    import os
    import socket
    import subprocess
    import sys

    runs = what_runs()
    # Not `os.getcwd()`: Ray unpacks another copy of the code where another node on this machine needs the code, too,
    # and then the first directory of this worker is gone.
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
        connection.sendall(token.encode() + json.dumps({"runs": runs, "digest": digest}).encode() + b"\n")
        if runs != wanted or not digest:
            connection.recv(1)  # until it has been heard, as a task that has ended is not listened to
            return 0
        number = connection.fileno()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "perdure.api.child", str(number), str(os.getpid()), root, here],
            pass_fds=[number], stdin=subprocess.DEVNULL, env={**os.environ, **env_vars}, cwd=here,
            start_new_session=True,
        )  # fmt: skip
    code = process.wait()
    if code:
        # Only here: perdure on this node may have been another version before the check.
        from perdure.executors._groups import kill_group

        kill_group(process.pid)
    return code
