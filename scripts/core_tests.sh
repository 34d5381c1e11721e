#!/usr/bin/env bash
# The core's own tests on other versions of Python:  core_tests.sh [--required] VERSION...
#
# The core leans on names of CPython and asyncio that may change their meaning from one minor version to the next. Each
# version gets a small virtual environment of its own, .venvs/py313 for 3.13. A version that is not installed is left
# out with a message; with --required that is an error. The interpreter of .venv is left out: `make test` has it.
set -euo pipefail

required=0
if [ "${1:-}" = --required ]; then
    required=1
    shift
fi

say() { printf '%s\n' "$*" >&2; }

is_version() { # PYTHON VERSION
    [ "$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$2" ]
}

find_python() { # VERSION -> its path
    local candidate
    for candidate in "$(command -v "python$1" || true)" \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/"python$1" \
        "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}"/cpython-"$1".*/bin/"python$1" \
        /usr/local/bin/"python$1" /opt/homebrew/bin/"python$1"; do
        if [ -x "$candidate" ] && is_version "$candidate" "$1"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# What a newer Python has changed so far: frames, generators, asyncio's tasks and timers, the order of callbacks.
TESTS=(
    tests/unit/test_loop.py tests/unit/test_replay.py tests/unit/test_source.py tests/unit/test_signature.py
    tests/unit/test_error_values.py tests/unit/test_branches.py tests/integration/test_hard_corners.py
    tests/crash/test_named_interleavings.py
)

for version in "$@"; do
    if is_version .venv/bin/python "$version"; then continue; fi
    if ! python=$(find_python "$version"); then
        say "Python $version is not installed: the core's tests are not run on it."
        [ "$required" = 0 ] || exit 1
        continue
    fi
    directory=.venvs/py${version/./}
    if [ ! -e "$directory/.installed" ] || [ pyproject.toml -nt "$directory/.installed" ]; then
        PYTHON=$python scripts/venv.sh "$directory" --no-compile -c constraints.txt -e '.[postgres]' \
            hypothesis pydantic pytest pytest-timeout pytest-xdist
        touch "$directory/.installed"
    fi
    say "The core's tests on Python $version:"
    # One kill point in 31, so that all interpreters together take no longer than the rest of the crash tests.
    PERDURE_TEST_SAMPLE=${PERDURE_TEST_SAMPLE:-31} "$directory/bin/python" -m pytest -q -n "${WORKERS:-3}" \
        --dist worksteal "${TESTS[@]}"
done
