#!/bin/sh
# An image made of programs that are installed here, with the libraries that they load, and nothing else. It needs no
# registry and no Dockerfile. Any Debian package will do; scripts need their interpreter named as well.
#
#     examples/image_of.sh sh awk sort tr cat wc ls mkdir tar gzip | docker import - tools:1
#     WORDS_IMAGE=tools:1 perdure run examples/word_counts.py main --name words
set -eu

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
mkdir -p "$root/bin" "$root/var"
mkdir -m 1777 "$root/tmp"

for program; do
    path=$(command -v "$program")
    cp -L "$path" "$root/bin/$program"
    # `libc.so.6 => /lib/.../libc.so.6 (0x...)`, and the loader itself: `/lib64/ld-linux-x86-64.so.2 (0x...)`
    { ldd "$path" 2>/dev/null || true; } | sed -n 's/^[^/]*\(\/[^ ]*\) (0x.*/\1/p' | while read -r library; do
        cp -L --parents "$library" "$root"
    done
done

tar -C "$root" --owner=0 --group=0 -c .
