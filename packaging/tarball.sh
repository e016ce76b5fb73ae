#!/usr/bin/env bash
# Packs a release: the program with its manual pages, completions and service.
#
#   packaging/tarball.sh PROGRAM TARGET OUT       such as target/…/peerpigeon x86_64-unknown-linux-musl dist
#
# [package.metadata.binstall] in Cargo.toml expects the name of this archive and the folder in it.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$1 target=$2 out=$3

version=$(sed -n '/^\[workspace\.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
name=peerpigeon-$version-$target
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
packaging/prepare.sh "$program" "$work/$name"
rm "$work/$name"/{copyright,peerpigeon.env,peerpigeon.service}
cp deploy/systemd/peerpigeon.service LICENSE README.md "$work/$name/"
install -m 755 "$program" "$work/$name/peerpigeon"
mkdir -p "$out"
# The same program always gives the same archive, because names are sorted and the archive contains no times and owners.
# BSD tar has no options for this.
if tar --version | grep -q GNU; then
  tar -C "$work" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf - "$name" | gzip -9 -n >"$out/$name.tar.gz"
else
  tar -C "$work" -czf "$out/$name.tar.gz" "$name"
fi
echo "$out/$name.tar.gz"
