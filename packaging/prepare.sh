#!/usr/bin/env bash
# Prepares the files that packages contain besides the program: manual pages, completions, the service, and a file for
# the settings of the service.
#
#   packaging/prepare.sh PROGRAM OUT
#
# PROGRAM must run on this machine, because it prints the pages and the completions.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "$1") out=$2

rm -rf "$out"
mkdir -p "$out/man" "$out/completions"
"$program" man "$out/man"
# Without -n, gzip would write the time into the file, so two builds would give different files.
gzip -9 -n "$out"/man/*.1
for shell in bash zsh fish; do "$program" completions $shell >"$out/completions/$shell"; done
# Packages install programs in /usr/bin, because /usr/local/bin is reserved for the machine's administrator.
sed '1,/^$/d; s#/usr/local/bin/#/usr/bin/#' deploy/systemd/peerpigeon.service >"$out/peerpigeon.service"
! grep -q /usr/local "$out/peerpigeon.service"
cat >"$out/peerpigeon.env" <<'ENV'
# Settings of the hub, one NAME=value a line: see peerpigeon-serve(1). After a change: systemctl restart peerpigeon
#
# HOST=:: also serves other machines, over IPv4 and IPv6.
#HOST=localhost
#PORT=8080
#AUTH_TOKEN=
#ALLOWED_ORIGINS=https://app.example.com
ENV
cat >"$out/copyright" <<COPYRIGHT
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Source: https://github.com/PeerPigeon/PeerPigeon-Rust

Files: *
Copyright: $(sed -n 's/^Copyright (c) //p' LICENSE)
License: Expat
$(sed '1,/^Copyright/d; s/^$/./; s/^/ /' LICENSE | sed '1{/^ \.$/d}')
COPYRIGHT
