#!/usr/bin/env bash
# Some tests step the system clock of a child process with libfaketime (a Debian package). Where it is absent, root
# gets it installed; anybody else is told how. Never a reason to fail: those tests say themselves that they are skipped.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

present() {
    local file
    for file in /usr/lib/*/faketime/libfaketime.so.1 /usr/lib/faketime/libfaketime.so.1 \
        /usr/local/lib/faketime/libfaketime.so.1 /opt/homebrew/lib/faketime/libfaketime.1.dylib; do
        [ -e "$file" ] && return 0
    done
    return 1
}

if ! grep -rqi faketime tests --include='*.py' || present; then exit 0; fi
hint="libfaketime is not installed: the tests that step the clock are skipped. (apt-get install libfaketime)"
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "$hint" >&2
    exit 0
fi
echo "Installing libfaketime, which the tests that step the clock need ..." >&2
install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libfaketime >/dev/null 2>&1 </dev/null; }
install || { apt-get update -qq >/dev/null 2>&1 </dev/null && install; } || echo "That failed. $hint" >&2
exit 0
