#!/usr/bin/env bash
# Builds the packages of a release from a program, installs them, and runs the installed programs. The packages are the
# archive, the npm packages and the Debian package.
#
#   tests/packages.sh PROGRAM
#
# The content of the Debian package is always checked. If the script runs as root and ROOTFS is a Debian file system with
# systemd (tests/systemd.sh says how to make one), systemd also runs the installed service. A static program
# (target/x86_64-unknown-linux-musl/…) also runs in an empty root and in an empty container.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "$1")
work=$(mktemp -d)
version=$("$program" --version | cut -d' ' -f2)
skipped=()
hub=
trap '[ -z "$hub" ] || kill -9 "$hub" 2>/dev/null || true; rm -rf "$work"' EXIT

fail() {
  echo "FAILED: $*"
  exit 1
}

is_static() {
  ldd "$program" 2>&1 | grep -qE "not a dynamic executable|statically linked"
}

# The command that asks a hub whether it is ready, and the name of the hub's host. Without a name, its address is used.
asks=("$program") host=

# Starts a hub with a command and stops it, as a service manager does.
runs() { # description, command
  local what=$1 address= code=0
  shift
  HOST=${HOST-127.0.0.1} PORT=0 DRAIN_SECS=0 LOG_FORMAT=json "$@" 2>"$work/log" &
  hub=$!
  for _ in $(seq 200); do
    address=$(sed -n 's/.*"server_started".*"listening":"\([^" ,]*\).*/\1/p' "$work/log")
    [ -z "$address" ] || break
    kill -0 $hub 2>/dev/null || break
    read -rt 0.1 <> <(:) || true
  done
  [ -n "$address" ] || { cat "$work/log"; fail "$what does not start"; }
  "${asks[@]}" health --url "http://${host:-${address%:*}}:${address##*:}/readyz" >/dev/null || fail "$what is not ready"
  kill -TERM $hub
  wait $hub || code=$?
  hub=
  [ $code = 0 ] || fail "$what ends with $code"
  echo "$what: runs, and stops with 0"
}

archive=$(packaging/tarball.sh "$program" test-target "$work/dist")
[ "$archive" = "$work/dist/peerpigeon-$version-test-target.tar.gz" ] || fail "the archive has the wrong name $archive"
tar -C "$work" -xzf "$archive"
in=$work/peerpigeon-$version-test-target
for file in LICENSE README.md peerpigeon.service man/peerpigeon-serve.1.gz completions/zsh; do
  [ -s "$in/$file" ] || fail "the archive has no $file"
done
runs "the program of the archive" "$in/peerpigeon"

if command -v node >/dev/null && command -v npm >/dev/null; then
  platform=$(node -p '`${process.platform}-${process.arch}`')
  node packaging/npm/layout.mjs "$version" "$work/npm" "$platform=$program"
  # tar and gzip build the packages here, because `npm pack` would compress for minutes.
  for package in "$work"/npm/*; do tar -C "$package" --transform 's,^\.,package,' -cf - . | gzip -1 >"$package.tgz"; done
  mkdir "$work/app"
  (cd "$work/app" && npm init -y >/dev/null && npm install --silent --no-audit --no-fund --offline "$work/npm/hub-$platform.tgz" "$work/npm/peerpigeon-hub.tgz")
  said=$(cd "$work/app" && npx --offline peerpigeon-hub --version)
  [ "$said" = "$("$program" --version)" ] || fail "npx peerpigeon-hub --version says $said"
  runs "npx peerpigeon-hub" node "$work/app/node_modules/.bin/peerpigeon-hub"
  rm -r "$work/app/node_modules/@peerpigeon"
  code=0
  said=$(node "$work/app/node_modules/.bin/peerpigeon-hub" --version 2>&1) || code=$?
  [ $code = 1 ] && grep -q "hub-$platform is missing" <<<"$said" || fail "without its program, npx says $said"
else
  skipped+=("npm: node or npm is missing")
fi

if command -v dpkg-deb >/dev/null; then
  packaging/prepare.sh "$program" target/package
  deb=$(packaging/deb/build.py "$program" "$(dpkg --print-architecture)" "$work/dist")
  dpkg-deb --contents "$deb" >"$work/contents"
  for file in usr/bin/peerpigeon usr/lib/systemd/system/peerpigeon.service etc/peerpigeon.env \
    usr/share/man/man1/peerpigeon-admin.1.gz usr/share/bash-completion/completions/peerpigeon usr/share/doc/peerpigeon/copyright; do
    grep -q " \./$file$" "$work/contents" || fail "the package has no $file"
  done
  dpkg-deb --extract "$deb" "$work/deb"
  if command -v systemd-analyze >/dev/null; then
    # systemd checks that the program exists, so the unit gets the path of the extracted program.
    mkdir "$work/unit"
    sed "s#/usr/bin/peerpigeon#$work/deb/usr/bin/peerpigeon#" "$work/deb/usr/lib/systemd/system/peerpigeon.service" >"$work/unit/peerpigeon.service"
    systemd-analyze verify --man=no "$work/unit/peerpigeon.service" || fail "systemd rejects the service"
  fi
  for script in postinst prerm postrm; do sh -n "packaging/deb/$script"; done
  runs "the program of the Debian package" "$work/deb/usr/bin/peerpigeon"
  if [ "$(id -u)" = 0 ] && command -v nsenter >/dev/null && [ -n "${ROOTFS:-}" ]; then
    tests/systemd.sh "$deb" "$ROOTFS" "$program"
  else
    skipped+=("dpkg --install: set ROOTFS to a Debian file system with systemd, as root")
  fi
else
  skipped+=("the Debian package: dpkg-deb is missing")
fi

if [ "$(id -u)" = 0 ] && is_static; then
  # Without /proc, /etc, /tmp and /dev, and with a read-only root.
  mkdir "$work/empty"
  cp "$program" "$work/empty/peerpigeon"
  # shellcheck disable=SC2016
  alone=(unshare --mount sh -c 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec chroot "$0" /peerpigeon "$@"' "$work/empty")
  runs "the program in an empty root" "${alone[@]}"
  # Nothing in this root knows the name localhost.
  asks=("${alone[@]}") host=localhost
  HOST='' runs "the program in an empty root, at localhost" "${alone[@]}"
  asks=("$program") host=
  code=0
  said=$("${alone[@]}" peer --hub wss://name.invalid --listen 1s 2>&1) || code=$?
  [ $code = 1 ] && grep -q "cannot connect to wss://name.invalid" <<<"$said" || fail "in an empty root, a name that does not exist gives $code: $said"
else
  skipped+=("an empty root: it needs root and a static program")
fi

if [ "$(id -u)" = 0 ] && command -v podman >/dev/null && command -v runc >/dev/null && is_static; then
  # shellcheck source=tests/engine.sh
  . tests/engine.sh
  mkdir "$work/image"
  cp "$program" "$work/image/peerpigeon"
  printf 'FROM scratch\nCOPY peerpigeon /peerpigeon\nENTRYPOINT ["/peerpigeon"]\n' >"$work/image/Dockerfile"
  podman build -q --isolation=chroot -t localhost/peerpigeon-empty "$work/image" >/dev/null
  said=$(podman run --rm --read-only --cap-drop=ALL localhost/peerpigeon-empty --version)
  [ "$said" = "$("$program" --version)" ] || fail "the program does not run in an empty container: $said"
  podman image rm localhost/peerpigeon-empty >/dev/null
  echo "the program runs in an empty container"
else
  skipped+=("an empty container: it needs root, podman and a static program")
fi

for what in ${skipped[@]+"${skipped[@]}"}; do echo "SKIPPED $what"; done
echo "packages: all available checks passed"
