#!/usr/bin/env bash
# What some tests need from Debian: libfaketime, to step the clock of a child process, the programs of Postgres and MariaDB, strace, to
# record what reaches the disk, the command ip, to make networks that can be cut, and Chromium, to look at the web page. Where one of these is absent, root gets a
# package installed, and any other user is told how. Never a reason to fail: the tests say themselves what they skip.
set -uo pipefail

has_faketime() {
    compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || [ -e /usr/lib/faketime/libfaketime.so.1 ] ||
        [ -e /usr/local/lib/faketime/libfaketime.so.1 ] || [ -e /opt/homebrew/lib/faketime/libfaketime.1.dylib ]
}

has_postgres() {
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null
}

has_mariadb() {
    command -v mariadb-install-db >/dev/null && command -v my_print_defaults >/dev/null
}

missing=()
has_faketime || missing+=(libfaketime)
has_postgres || missing+=(postgresql)
# The programs without a service; the one that makes a data directory needs a program of the client.
has_mariadb || missing+=(mariadb-server-core mariadb-client-core)
[ "$(uname)" != Linux ] || command -v strace >/dev/null || missing+=(strace)
[ "$(uname)" != Linux ] || command -v chromium >/dev/null || missing+=(chromium)
# Only on Linux, and only for root, does it help.
[ "$(uname)" != Linux ] || [ "$(id -u)" != 0 ] || command -v ip >/dev/null || missing+=(iproute2)
[ ${#missing[@]} -gt 0 ] || exit 0

hint="not installed: ${missing[*]}. The tests that need it are skipped. (apt-get install ${missing[*]})"
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "$hint" >&2
    exit 0
fi
echo "Installing ${missing[*]}, which some tests need ..." >&2
if ! has_postgres && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    # Only the programs: the package would also make a cluster and start it.
    mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
fi
install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold \
        "${missing[@]}" >/dev/null 2>&1 </dev/null
}
install || { apt-get update -qq >/dev/null 2>&1 </dev/null && install; } || echo "That failed; $hint" >&2
exit 0
