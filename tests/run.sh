#!/usr/bin/env bash
# Everything that is tested, from a fresh clone: installs what it needs where it can, and says loudly where it cannot.
#
#   tests/run.sh            all of it
#   tests/run.sh rust       unit, transcript, simulator and socket tests
#   tests/run.sh interop    other people's clients: npm ws, Python websockets, browsers
#   tests/run.sh autobahn   RFC 6455 by the Autobahn suite
#   tests/run.sh deploy     manifests, alert rules, Compose and workflows, without deploying them
#   tests/run.sh container  the image and docker-compose.yml, brought up for real; not among all of it
set -euo pipefail
cd "$(dirname "$0")/.."

suites=${*:-rust interop autobahn deploy}
failed=()

install() { # command, Debian package
  command -v "$1" >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$2" >/dev/null 2>&1 ||
      { apt-get update -q >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$2" >/dev/null; }
  else
    echo "please install $2: '$1' is missing" >&2
    return 1
  fi
}

install cargo cargo
install cc gcc
# Without it the partition between network namespaces is skipped, with a word.
install ip iproute2 || true

for suite in $suites; do
  echo "=== $suite"
  case $suite in
    rust)
      # The tests of the bridge start servers of their own; without one they fail, and say so.
      { install redis-server redis-server && install redis-cli redis-tools; } || true
      cargo test --workspace --locked --no-fail-fast || failed+=("$suite")
      ;;
    interop)
      # What is still missing then, the suites name and skip.
      { install node nodejs && install npm npm && install python3 python3-venv; } || true
      cargo build --release --locked
      tests/interop/run.sh "${CARGO_TARGET_DIR:-target}/release/peerpigeon" || failed+=("$suite")
      ;;
    autobahn) tests/conformance/autobahn.sh || failed+=("$suite") ;;
    deploy) tests/deploy.sh || failed+=("$suite") ;;
    container)
      { install podman podman && install runc runc && install docker-compose docker-compose && install debootstrap debootstrap; } || true
      { tests/container.sh && tests/compose.sh; } || failed+=("$suite")
      ;;
    *)
      echo "no suite is called $suite: rust, interop, autobahn, deploy, container" >&2
      exit 64
      ;;
  esac
done

if [ ${#failed[@]} -gt 0 ]; then
  echo "FAILED: ${failed[*]}"
  exit 1
fi
echo "all suites passed: $suites"
