#!/usr/bin/env bash
# Make a virtual environment and install into it:  venv.sh DIRECTORY PIP-INSTALL-ARGUMENTS...
#
# Takes the newest python3 (3.11 or later) that can make one; PYTHON names another. Where Debian's python3-venv is
# missing, virtualenv or the system's own pip will do. An environment that works is kept and only brought up to date.
set -euo pipefail

directory=$1
shift

say() { printf '%s\n' "$*" >&2; }

# The build of the package itself is held to the same versions: old pips read the first name, new ones the second.
export PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
case " $* " in *" -r "*) unset PIP_CONSTRAINT PIP_BUILD_CONSTRAINT ;; esac

suits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

candidates() {
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON" || true
        return
    fi
    local minor
    for minor in 14 13 12 11; do command -v "python3.$minor" || true; done
    command -v python3 || true
}

create() { # PYTHON -> 0 if the environment stands
    local python=$1
    rm -rf "$directory"
    if "$python" -c 'import ensurepip' 2>/dev/null && "$python" -m venv "$directory" >/dev/null 2>&1; then return 0; fi
    rm -rf "$directory"
    if "$python" -m virtualenv --quiet "$directory" 2>/dev/null; then return 0; fi
    rm -rf "$directory"
    # No ensurepip, but a pip of the system's that can install into another environment (22.3 and later).
    if "$python" -m venv --without-pip "$directory" 2>/dev/null &&
        "$python" -m pip --python "$directory/bin/python" install --quiet pip >/dev/null 2>&1; then return 0; fi
    rm -rf "$directory"
    return 1
}

if ! { [ -x "$directory/bin/python" ] && suits "$directory/bin/python" &&
    "$directory/bin/python" -m pip --version >/dev/null 2>&1; }; then
    tried=""
    made=""
    while read -r python; do
        suits "$python" || continue
        tried=${tried:-$python}
        if create "$python"; then
            made=$python
            break
        fi
    done < <(candidates)
    if [ -z "$tried" ]; then
        say "perdure needs Python 3.11 or later, and none was found${PYTHON:+ at PYTHON=$PYTHON}."
        say "On Debian 12 or Ubuntu 24.04 and later: apt-get install python3 python3-venv"
        say "Or name one:                            make PYTHON=/path/to/python3.12 ..."
        exit 1
    fi
    if [ -z "$made" ]; then
        version=$("$tried" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        say "$tried (Python $version) cannot make a virtual environment: its venv or ensurepip module is missing."
        say "On Debian or Ubuntu, as root: apt-get install python$version-venv"
        exit 1
    fi
    say "$directory: $("$made" --version) ($made)"
fi

say "$directory: installing"
"$directory/bin/python" -m pip install --quiet "$@" </dev/null
