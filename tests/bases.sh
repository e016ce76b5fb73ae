#!/usr/bin/env bash
# Provides the base images that Dockerfile and docker-compose.yml name. Builds stand-ins from Debian packages, or pulls
# the images if PULL=1 is set. The script cannot build Grafana, because Debian has no package of it. Prints the
# available images. Needs root, podman and debootstrap.
#
#   tests/bases.sh [beginning of a name…]     for example gcr.io/distroless; default: all images
set -euo pipefail
cd "$(dirname "$0")/.."

runtime=$(sed -n 's/^ARG RUNTIME_IMAGE=//p' Dockerfile)
images=$(sed -n 's/^ *image: \(docker\.io[^ ]*\)$/\1/p' docker-compose.yml)
work=${TMPDIR:-/tmp}/peerpigeon-bases
mkdir -p "$work"

rootfs() { # builds the root file system that all stand-ins share, unless it exists
  podman image exists localhost/peerpigeon-stand-in:trixie && return
  debootstrap --variant=minbase --include=haproxy,prometheus,redis-server,wget trixie "$work/rootfs" >"$work/debootstrap.log" 2>&1 ||
    { tail "$work/debootstrap.log" >&2; return 1; }
  rm -rf "$work/rootfs"/var/{cache/apt,lib/apt/lists}/*
  tar -C "$work/rootfs" -cf "$work/rootfs.tar" .
  printf 'FROM scratch\nADD rootfs.tar /\n' >"$work/Dockerfile"
  podman build -q --isolation=chroot -t localhost/peerpigeon-stand-in:trixie "$work" >/dev/null
  rm -rf "$work/rootfs" "$work/rootfs.tar"
}

stand_in() { # name of the image, further lines of its Dockerfile
  rootfs
  mkdir -p "$work/empty"
  printf 'FROM localhost/peerpigeon-stand-in:trixie\n%b' "$2" | podman build -q --isolation=chroot -t "$1" -f - "$work/empty" >/dev/null
  echo "made $1"
}

wanted() { # image, beginnings of names
  [ $# -gt 1 ] || return 0
  local image=$1 start
  shift
  for start; do [[ $image != "$start"* ]] || return 0; done
  return 1
}

for image in $runtime $images; do
  wanted "$image" "$@" || continue
  if podman image exists "$image"; then echo "have $image"; continue; fi
  if [ "${PULL:-}" = 1 ] && timeout 300 podman pull -q "$image" >/dev/null 2>&1; then echo "pulled $image"; continue; fi
  case $image in
    "$runtime") stand_in "$image" '' ;;
    */haproxy:*) stand_in "$image" 'USER 106:111\nSTOPSIGNAL SIGUSR1\nCMD ["haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]\n' ;;
    */prometheus:*) stand_in "$image" 'RUN mkdir -p /prometheus && chown 65534:65534 /prometheus\nUSER 65534:65534\nVOLUME /prometheus\nENTRYPOINT ["/usr/bin/prometheus"]\n' ;;
    */redis:*) stand_in "$image" '' ;;
    *) echo "cannot build $image" ;;
  esac
done
