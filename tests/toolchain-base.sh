#!/usr/bin/env bash
# Builds the build image of the Dockerfile from Debian packages and this machine's Rust toolchain, without a registry.
#
#   tests/toolchain-base.sh NAME
set -euo pipefail
work=${TMPDIR:-/tmp}/peerpigeon-toolchain
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"
debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev,make trixie "$work/rootfs" >"$work/log" 2>&1 || { tail "$work/log" >&2; exit 1; }
mkdir -p "$work/rootfs/usr/local/rust" "$work/rootfs/usr/local/cargo"
cp -r "$(rustc --print sysroot)"/{bin,lib} "$work/rootfs/usr/local/rust/"
# The configuration of this machine's cargo is copied, because it may be needed to download crates.
[ ! -f "${CARGO_HOME:-$HOME/.cargo}/config.toml" ] || cp "${CARGO_HOME:-$HOME/.cargo}/config.toml" "$work/rootfs/usr/local/cargo/"
# The trusted certificates of this machine are copied for the same reason.
cp /etc/ssl/certs/ca-certificates.crt "$work/rootfs/etc/ssl/certs/"
rm -rf "$work/rootfs"/var/{cache/apt,lib/apt/lists}/*
tar -C "$work/rootfs" -cf "$work/rootfs.tar" .
rm -rf "$work/rootfs"
printf 'FROM scratch\nADD rootfs.tar /\nENV PATH=/usr/local/rust/bin:/usr/bin:/bin:/usr/sbin:/sbin CARGO_HOME=/usr/local/cargo\n' >"$work/Dockerfile"
podman build -q --isolation=chroot -t "$1" "$work" >/dev/null
echo "made $1"
