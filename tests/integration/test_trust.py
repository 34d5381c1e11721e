"""Code, stores and directories of other users: loaded and used only where the user names them (P11)."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.shell import Shell

Temp = pytest.TempPathFactory
STRANGER = 4321

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


def _interrupted(shell: Shell, file: str) -> None:
    """A run of a file that only `resume` finishes."""
    (shell.path / file).parent.mkdir(parents=True, exist_ok=True)
    (shell.path / file).write_text(
        "import os, perdure\n"
        "env = perdure.TaskEnvironment(name='trust')\n"
        "@env.task\n"
        "def main() -> int:\n"
        "    if not os.path.exists('go'):\n"
        "        os._exit(9)\n"
        "    return 7\n"
    )
    assert shell("run", file, "main", "--name", "one").returncode == 9
    (shell.path / "go").touch()


def _give(path: Path) -> None:
    os.chown(path, STRANGER, -1)


@root_only
@pytest.mark.parametrize(
    ("file", "spoil"),
    [
        ("flow.py", lambda path: _give(path / "flow.py")),
        ("flow.py", lambda path: (path / "flow.py").chmod(0o666)),
        ("src/flow.py", lambda path: _give(path / "src")),
        ("src/flow.py", lambda path: (path / "src").chmod(0o777)),
        ("pkg/flow.py", lambda path: _give(path / "pkg" / "__init__.py")),
        ("pkg/flow.py", lambda path: (path / "pkg" / "__init__.py").chmod(0o666)),
        ("flow.py", lambda path: path.chmod(0o777)),
    ],
)
def test_resume_loads_no_code_that_another_user_may_have_written(
    shell: Shell, file: str, spoil: Callable[[Path], object]
) -> None:
    (shell.path / "pkg").mkdir()
    (shell.path / "pkg" / "__init__.py").touch()
    _interrupted(shell, file)
    spoil(shell.path)
    refused = shell("resume", "one")
    assert refused.returncode == 2
    assert "not safe to load" in refused.stderr
    assert "--file" in refused.stderr
    assert shell("resume", "one", "--file", file).stdout == "7\n"


def test_resume_loads_the_file_that_was_checked_and_not_a_link_to_it(shell: Shell, tmp_path_factory: Temp) -> None:
    """A link elsewhere leads into the project; modules beside the link must not be found."""
    _interrupted(shell, "flow.py")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "json.py").write_text("raise SystemExit('loaded from beside the link')\n")
    (elsewhere / "flow.py").symlink_to(shell.path / "flow.py")
    script = (
        "import sys\n"
        "from perdure.api.loading import load_target\n"
        f"spec = load_target({str(elsewhere / 'flow.py')!r} + '::flow::trust.main', 'one', {str(shell.path)!r})\n"
        f"assert spec.name == 'trust.main'\n"
        f"assert {str(elsewhere)!r} not in sys.path, sys.path\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd="/", env=shell.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_link_that_leads_out_of_the_project_is_refused(shell: Shell, tmp_path_factory: Temp) -> None:
    _interrupted(shell, "flow.py")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "flow.py").write_text((shell.path / "flow.py").read_text())
    (shell.path / "flow.py").unlink()
    (shell.path / "flow.py").symlink_to(elsewhere / "flow.py")
    refused = shell("resume", "one")
    assert (refused.returncode, "outside this project" in refused.stderr) == (2, True)


def test_a_package_that_reaches_above_the_project_is_refused(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "__init__.py").touch()
    shell = Shell(tmp_path / "project")
    _interrupted(shell, "flow.py")
    refused = shell("resume", "one")
    assert (refused.returncode, "reaches above this project" in refused.stderr) == (2, True)
    assert shell("resume", "one", "--file", "flow.py").stdout == "7\n"


@root_only
@pytest.mark.parametrize("spoil", [lambda path: path.chmod(0o777), _give])
def test_the_code_root_ends_below_a_directory_that_others_may_write_to(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").touch()
    (tmp_path / "pkg" / "flow.py").write_text("x = 1\n")
    spoil(tmp_path)
    script = (
        f"from perdure.core.journal.source import code_root; print(code_root({str(tmp_path / 'pkg' / 'flow.py')!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "pkg")


@root_only
@pytest.mark.parametrize("foreign", [".perdure", ".perdure/perdure.db"])
def test_a_store_of_another_user_is_refused_unless_it_is_named(shell: Shell, foreign: str) -> None:
    assert shell("run", "wf.py", "add", "--a", "1").returncode == 0
    _give(shell.path / foreign)
    for command in (("ls",), ("resume", "--all"), ("run", "wf.py", "add", "--a", "1")):
        refused = shell(*command)
        assert refused.returncode == 2, refused.stdout
        assert "belongs to another user" in refused.stderr
        assert "--store" in refused.stderr
    assert shell("ls", "--store", ".perdure/perdure.db").returncode == 0


@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_everything_that_perdure_makes_is_the_owners_alone(tmp_path: Path, mask: int) -> None:
    """Family: directories on the way to a private one, with an open umask; the store, blobs, workers' locks."""
    script = (
        f"import os; os.umask({mask})\n"
        "import perdure\n"
        "env = perdure.TaskEnvironment(name='closed')\n"
        "@env.task\n"
        "def main() -> str:\n"
        "    perdure.io.Dir.from_local(os.path.dirname(os.path.abspath(__file__)) + '/data').path\n"
        "    file = perdure.io.File.from_local(__file__)\n"
        "    return file.path\n"
        "perdure.run(main)\n"
        "from perdure.core.ground.private import make_private\n"
        "make_private('.perdure/a/b/c')\n"
    )
    (tmp_path / "flow.py").write_text(script)
    (tmp_path / "data" / "below").mkdir(parents=True)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PERDURE")}
    subprocess.run([sys.executable, "flow.py"], cwd=tmp_path, env=clean, check=True)
    for path in (tmp_path / ".perdure").rglob("*"):  # blobs may be read below a directory that a user has opened
        assert not stat.S_IMODE(path.lstat().st_mode) & 0o022, path
    assert stat.S_IMODE((tmp_path / ".perdure").stat().st_mode) == 0o700
    for name in ("perdure.db", "perdure.db-workers", "blobs", "a", "a/b", "a/b/c"):
        assert not stat.S_IMODE((tmp_path / ".perdure" / name).stat().st_mode) & 0o077, name


def test_the_directory_of_a_store_in_memory_cannot_be_guessed_and_is_removed() -> None:
    script = (
        "import os, stat, perdure\n"
        "from perdure import runtime\n"
        "perdure.init(store='memory://')\n"
        "base = os.path.dirname(runtime.container_logs())\n"
        "assert not stat.S_IMODE(os.stat(base).st_mode) & 0o077\n"
        "assert str(os.getpid()) not in base\n"
        "print(base)\n"
    )
    places = {
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    }
    assert len(places) == 2
    assert not any(os.path.exists(place) for place in places)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:user:secret@host", "postgres//user:secret@host/db", "sqlite://user:secret@host/x",
        "sqlite:user:secret@host", "postgresql://user:se@cret@host/db", "postgresql://user:sec/ret@host/db",
        "user:secret@host", "mysql://user:secret@host/db", "memory://user:secret@host",
    ],
)  # fmt: skip
def test_a_mistyped_store_url_is_refused_without_its_user_and_password(shell: Shell, url: str) -> None:
    for command in (("ls",), ("show", "one"), ("run", "wf.py", "add", "--a", "1")):
        refused = shell(*command, PERDURE_STORE=url)
        assert refused.returncode == 2, refused.stdout + refused.stderr
        for word in ("secret", "cret", "sec", "user:"):
            assert word not in refused.stderr.replace("user@host/database", ""), refused.stderr
