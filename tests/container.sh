#!/usr/bin/env bash
# Builds the image with the Dockerfile and runs it without root, capabilities or a writable file system. Checks that it
# becomes healthy, that two peers discover each other, and that SIGTERM ends it with 0.
#
#   tests/container.sh                builds the program in the image. If podman has no build image, and PULL=1 is not
#                                     set, the Rust toolchain of this machine builds the program
#   BINARY=FILE tests/container.sh    copies this program into the image instead of building it
#
# Needs root, podman and debootstrap. Prints SKIPPED and the reason if it cannot run.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
  echo "SKIPPED tests/container.sh: $*"
  exit 0
}
[ "$(id -u)" = 0 ] || skip "not root"
for tool in podman debootstrap; do command -v $tool >/dev/null || skip "$tool is missing"; done

work=$(mktemp -d)
name=peerpigeon-trial-$$
trap 'podman rm -f -t 0 "$name" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
image=localhost/peerpigeon:latest
commit=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
. tests/engine.sh
tests/bases.sh gcr.io/distroless || skip "no base image"

podman_build() { # Debian's podman can use the network during a build only with --network=host
  timeout 2400 podman build --isolation=chroot --network=host --format docker --build-arg PEERPIGEON_COMMIT="$commit" -t "$image" "$@"
}
if [ -n "${BINARY:-}" ]; then
  mkdir -p "$work/context/bin"
  cp "$BINARY" "$work/context/bin/peerpigeon"
  cp LICENSE "$work/context/"
  # This stage replaces the stage `build` of the Dockerfile, from which the Dockerfile copies the binary.
  printf 'FROM scratch AS build\nCOPY bin/peerpigeon /build/target/release/peerpigeon\n' >"$work/context/Dockerfile"
  sed -n '/^ARG RUNTIME_IMAGE/p' Dockerfile | cat - "$work/context/Dockerfile" >"$work/context/Dockerfile.all"
  sed -n '/^FROM \${RUNTIME_IMAGE}/,$p' Dockerfile >>"$work/context/Dockerfile.all"
  podman_build -f "$work/context/Dockerfile.all" "$work/context" >"$work/log" 2>&1 || { tail -20 "$work/log"; exit 1; }
else
  builder=$(sed -n 's/^ARG BUILD_IMAGE=//p' Dockerfile)
  if ! podman image exists "$builder"; then
    [ "${PULL:-}" = 1 ] && podman pull -q "$builder" || tests/toolchain-base.sh "$builder" || skip "no image with Rust"
  fi
  podman_build . >"$work/log" 2>&1 || { tail -20 "$work/log"; exit 1; }
  echo "built: $(grep -E '^(STEP|peerpigeon [0-9])' "$work/log" | tail -3 | head -1)"
fi

fail() {
  echo "FAILED: $*"
  podman logs "$name" 2>&1 | tail -20
  exit 1
}
inspect() { podman inspect --format "$1" "$name"; }

podman run -d --name "$name" --read-only --read-only-tmpfs=false --cap-drop=ALL --security-opt=no-new-privileges -p 127.0.0.1::8080 \
  -e DRAIN_SECS=1 "$image" >/dev/null 2>"$work/run" || { cat "$work/run"; exit 1; }
[ "$(podman image inspect --format '{{.Config.User}}' "$image")" = 65532:65532 ] || fail "the user of the image is not 65532"
[ "$(podman image inspect --format '{{index .Config.Labels "org.opencontainers.image.revision"}}' "$image")" = "$commit" ] || fail "the label of the image names another commit"
process=$(inspect '{{.State.Pid}}')
grep -qP '^Uid:\t65532\t65532' "/proc/$process/status" || fail "the hub does not run as user 65532"
grep -qP '^CapEff:\t0+$' "/proc/$process/status" || fail "the hub has capabilities"
grep -q ' / .* ro,' "/proc/$process/mountinfo" || grep -qE ' / / ro' "/proc/$process/mountinfo" || fail "the root file system is writable"

# Without systemd, podman does not run health checks by itself.
for _ in $(seq 30); do
  podman healthcheck run "$name" >/dev/null 2>&1 && break
  sleep 0.2
done
podman healthcheck run "$name" >/dev/null 2>&1 || fail "the health check fails"
[ "$(podman inspect --format '{{.State.Health.Status}}' "$name")" = healthy ] || fail "podman does not report the container as healthy"
echo "healthy, as 65532, read-only, without capabilities"

at=ws://$(podman port "$name" 8080 | head -1)
first=$(printf %040d 1) second=$(printf %040d 2)
in_image() { podman run --rm --no-healthcheck --network=host --read-only "$image" "$@"; }
in_image peer --hub "$at" --peer-id "$first" --network trial --listen 6s --json >"$work/first" &
in_image peer --hub "$at" --peer-id "$second" --network trial --listen 6s --json >"$work/second"
wait $!
grep -q "$second" "$work/first" || fail "the first peer has not discovered the second peer"
grep -q "$first" "$work/second" || fail "the second peer has not discovered the first peer"
echo "two peers have met"

podman stop -t 20 "$name" >/dev/null 2>&1
code=$(inspect '{{.State.ExitCode}}')
[ "$code" = 0 ] || fail "after SIGTERM the hub exits with $code"
podman logs "$name" 2>&1 | grep -q server_drained || fail "the hub did not drain"
echo "SIGTERM: drained, exit 0"
echo "tests/container.sh passed: $(podman image inspect --format '{{.Size}}' "$image") bytes with its base"
