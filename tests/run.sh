#!/usr/bin/env bash
# Runs all tests from a fresh clone. Installs the required programs if possible, and names those it cannot install.
#
#   tests/run.sh            all suites except container
#   tests/run.sh rust       unit, transcript, simulator and socket tests
#   tests/run.sh fuzz       the fuzz targets, for two minutes, with random changes of their stored inputs
#   tests/run.sh interop    our client and others: npm ws, Python websockets, browsers
#   tests/run.sh autobahn   WebSocket conformance (RFC 6455), by the Autobahn suite
#   tests/run.sh deploy     manifests, the Helm chart, alert rules, Compose and workflows, without deploying them
#   tests/run.sh packages   the archive, npm packages and Debian package of a release, around a debug build
#   tests/run.sh container  the image and docker-compose.yml, started with podman
#
# The suite rust runs alone, because it uses all cores. autobahn runs alone, because it requires that a server closes a
# connection within one second. Then the other suites run in parallel, because they mostly wait. fuzz has the lowest
# priority and uses the CPU time that the other suites leave. The output of each suite is printed when it ends. At the
# end of the run, the last lines of each failed suite are printed again.
set -euo pipefail
cd "$(dirname "$0")/.."

suites=${*:-rust autobahn interop deploy packages fuzz}
for suite in $suites; do
  case $suite in
    rust | fuzz | interop | autobahn | deploy | packages | container) ;;
    *)
      echo "unknown suite $suite: use rust, fuzz, interop, autobahn, deploy, packages or container" >&2
      exit 64
      ;;
  esac
done
# The bench suite needs epoll and CPU affinity, which only Linux has. The suites that test the workspace select the same
# packages, so that each package is built only once.
workspace=--workspace
[ "$(uname)" = Linux ] || workspace="--workspace --exclude peerpigeon-bench"
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
target=${CARGO_TARGET_DIR:-target}
failed=() running=()

# Packages are installed before the suites run in parallel, because apt-get allows only one process at a time.
install() { # command, Debian packages
  local command=$1
  shift
  command -v "$command" >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$@" >/dev/null 2>&1 ||
      { apt-get update -q >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$@" >/dev/null; }
  else
    echo "please install $*: '$command' is missing" >&2
    return 1
  fi
}

provide() { # suite: installs the programs that it needs. The suite names missing programs, and skips their tests.
  case $1 in
    rust) install redis-server redis-server && install redis-cli redis-tools && install ps procps && install pebble pebble && install turnserver coturn ;;
    interop)
      install node nodejs && install npm npm && install python3 python3-venv
      [ -n "${CHROMIUM:-}" ] || install chromium chromium
      ;;
    deploy)
      install promtool prometheus
      install haproxy haproxy
      install nginx nginx-light
      install systemd-analyze systemd
      docker compose version >/dev/null 2>&1 || install docker-compose docker-compose
      ;;
    packages) install node nodejs && install npm npm && install python3 python3 ;;
    container)
      install podman podman && install runc runc && install docker-compose docker-compose && install debootstrap debootstrap
      ;;
  esac
}

build() { # suite
  case $1 in
    # With the test profile, these use what `cargo test` has already built. In interop, the checks for impossible states
    # then panic.
    interop | packages) cargo build --profile test --locked --bin peerpigeon ;;
    # shellcheck disable=SC2086
    fuzz) cargo test $workspace --locked --no-run --test fuzz --test it ;;
    autobahn) cargo build --profile test --locked --package peerpigeon-shard --example echo ;;
  esac
}

run() { # suite
  case $1 in
    rust)
      # shellcheck disable=SC2086
      cargo test $workspace --locked --no-fail-fast
      ;;
    fuzz)
      # Two targets of a test program run at the same time, so 15 s for each target take less than two minutes in all.
      # shellcheck disable=SC2086
      FUZZ_SECONDS=${FUZZ_SECONDS:-15} nice -n 19 cargo test $workspace --locked --no-fail-fast \
        --test fuzz --test it -- --nocapture --test-threads=2 the_corpus_of
      ;;
    interop) tests/interop/run.sh "$target/debug/peerpigeon" ;;
    autobahn) tests/conformance/autobahn.sh ;;
    deploy) tests/deploy.sh ;;
    packages) tests/packages.sh "$target/debug/peerpigeon" ;;
    container) tests/container.sh && tests/compose.sh ;;
  esac
}

finish() { # suite, process
  local code=0
  wait "$2" || code=$?
  echo "=== $1"
  cat "$logs/$1"
  echo "$1: $((SECONDS - began)) s"
  [ "$code" = 0 ] || failed+=("$1")
}

alone() { # suite
  if build "$1"; then
    run "$1" >"$logs/$1" 2>&1 &
    finish "$1" $!
  else
    failed+=("$1")
  fi
}

install cargo cargo
install cc gcc
# Without `ip`, the test of a network partition is skipped with a message.
install ip iproute2 || true

beside=()
for suite in $suites; do
  began=$SECONDS
  provide "$suite" || true
  if [ "$suite" = rust ]; then
    echo "=== rust"
    run rust || failed+=(rust)
    echo "rust: $((SECONDS - began)) s"
  elif [ "$suite" = autobahn ]; then
    alone "$suite"
  elif build "$suite"; then
    beside+=("$suite")
    echo "=== $suite is ready: $((SECONDS - began)) s"
  else
    failed+=("$suite")
  fi
done
began=$SECONDS
for suite in ${beside[@]+"${beside[@]}"}; do
  run "$suite" >"$logs/$suite" 2>&1 &
  running+=("$suite $!")
done
for each in ${running[@]+"${running[@]}"}; do
  # shellcheck disable=SC2086
  finish $each
done

if [ ${#failed[@]} -gt 0 ]; then
  for suite in "${failed[@]}"; do
    [ ! -s "$logs/$suite" ] || { echo "=== the end of $suite, which failed" && tail -n 20 "$logs/$suite"; }
  done
  echo "FAILED: ${failed[*]}"
  exit 1
fi
echo "all suites passed: $suites"
