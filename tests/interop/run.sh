#!/usr/bin/env bash
# Tests a hub process with clients of third parties and with this repository's client.
#
#   tests/interop/run.sh [HUB_BINARY [SUITE...]]      suites: ws websockets rolling browser admin peerpigeon client
#                                                   dashboard
#                                                   and wss: the suites ws, websockets, browser, admin and peerpigeon,
#                                                   and a part of client, with hubs that use TLS
#
# STORM=1000  peers that join at once (0: no storm)    PAIRS=6  pairs of npm peerpigeon, each in its own network
# SLOW=1      adds tests that take minutes             TABS=5   tabs of npm peerpigeon that form one mesh
# HUBS_AT=ws://…,ws://…  only for `browser`: uses these running hubs, which form one mesh, and starts none
# PEERS=60    peers of the rolling restart             DRAIN_SECS=3  drain of each hub in the rolling restart
#
# If a program that a suite requires is missing and cannot be installed, the script prints SKIP. At the end it prints `N
# passed, N failed, N skipped`. The suite client also uses coturn, Firefox (firefox-esr), Bun and Deno if they are
# installed, and otherwise skips the tests that need them.
set -euo pipefail

hub=$(realpath "${1:-target/release/peerpigeon}")
[[ -x $hub || -n ${HUBS_AT:-} ]] || { echo "no hub binary at $hub" >&2; exit 2; }
export HUB_BIN=$hub
shift || true
suites=("$@")
[[ ${#suites[@]} -gt 0 ]] || suites=(ws websockets rolling browser admin peerpigeon client dashboard wss)

cd "$(dirname "$0")"
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
passed=0 failed=0 skipped=0

main() {
  for suite in "${suites[@]}"; do
    echo "== $suite"
    case $suite in
      ws) needs_node && run_node ws ;;
      websockets) needs_python && run_python ;;
      rolling) needs_python && run_rolling ;;
      client) { needs_node_in ../../clients/js && run_units; } || true; needs_node && needs_chromium && run_node client ;;
      wss) over_tls ;;
      browser | admin | peerpigeon | dashboard) needs_node && needs_chromium && run_node "$suite" ;;
      *) echo "no such suite: $suite" >&2; exit 2 ;;
    esac || true
  done
  echo "$passed passed, $failed failed, $skipped skipped"
  [[ $failed -eq 0 ]]
}

# Repeats the most important suites with hubs that use TLS, with a certificate of a private authority.
over_tls() {
  command -v openssl >/dev/null || skip "openssl is missing" || return 1
  # Packages are installed before the suites run with TLS, because node and Python then trust only the tests' authority.
  { needs_node && needs_python && needs_chromium; } || true
  local at=$logs/tls
  mkdir -p "$at"
  {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=tests \
      -keyout "$at/ca.key" -out "$at/ca.pem" &&
      openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout "$at/key.pem" -out "$at/csr.pem" &&
      printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' >"$at/ext" &&
      openssl x509 -req -in "$at/csr.pem" -CA "$at/ca.pem" -CAkey "$at/ca.key" -CAcreateserial -days 2 -extfile "$at/ext" -out "$at/crt.pem"
  } >"$logs/openssl" 2>&1 || { cat "$logs/openssl"; skip "cannot create a certificate"; return 1; }
  local -x TLS_CERT=$at/crt.pem TLS_KEY=$at/key.pem MESH_CA=$at/ca.pem NODE_EXTRA_CA_CERTS=$at/ca.pem SSL_CERT_FILE=$at/ca.pem
  { needs_node && run_node ws; } || true
  { needs_python && run_python; } || true
  { needs_node && needs_chromium && run_node browser; } || true
  { needs_node && needs_chromium && run_node admin; } || true
  { needs_node && needs_chromium && run_node peerpigeon; } || true
  # Only some tests of the client are repeated with TLS. All other tests of the client do not depend on TLS, or need
  # Firefox, which does not trust the authority of the tests.
  { needs_node && needs_chromium && run_node client --test-name-pattern 'two tabs discover|twelve tabs|megabyte|hub that'; } || true
}

skip() {
  echo "SKIP $suite: $1"
  skipped=$((skipped + 1))
  return 1
}

needs_node() { needs_node_in .; }

# needs_node_in DIRECTORY: installs the packages of its lock file there.
needs_node_in() {
  { command -v node && command -v npm; } >/dev/null || skip "node or npm is missing" || return 1
  # The stamp is written last, so that an interrupted installation is repeated.
  cmp -s "$1/package-lock.json" "$1/node_modules/.installed" && return
  npm --prefix "$1" ci --ignore-scripts --loglevel=error >"$logs/npm" 2>&1 && cp "$1/package-lock.json" "$1/node_modules/.installed" && return
  cat "$logs/npm"
  skip "npm ci failed"
}

needs_python() {
  command -v python3 >/dev/null || skip "python3 is missing" || return 1
  cmp -s requirements.txt .venv/.installed && return
  { python3 -m venv --clear .venv && .venv/bin/pip install --quiet --requirement requirements.txt; } >"$logs/pip" 2>&1 &&
    cp requirements.txt .venv/.installed && return
  cat "$logs/pip"
  skip "cannot create a virtual environment with $(cat requirements.txt)"
}

needs_chromium() {
  [[ -x ${CHROMIUM:-/usr/bin/chromium} ]] && return
  [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null || skip "Chromium is missing; set CHROMIUM to its path" || return 1
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; } >"$logs/apt" 2>&1 && return
  tail -20 "$logs/apt"
  skip "Chromium cannot be installed"
}

# run_node SUITE [OPTION...]
run_node() {
  local report=$logs/$1.tap ended=0
  node --test "${@:2}" --test-reporter=spec --test-reporter-destination=stdout \
    --test-reporter=tap --test-reporter-destination="$report" "$1.test.mjs" || ended=$?
  count "$ended" "$(sum pass "$report")" "$(sum fail "$report")" "$(sum cancelled "$report")" "$(sum skipped "$report")"
}

# Checks the client without a hub: its types, its unit tests, and that dist/ is built from the source.
run_units() {
  local report=$logs/units.tap ended=0
  (cd ../../clients/js && npx tsc && node build.mjs --check && node test/run.mjs --test-reporter=tap --test-reporter-destination="$report" \
    --test-reporter=spec --test-reporter-destination=stdout) || ended=$?
  touch "$report"
  count "$ended" "$(sum pass "$report")" "$(sum fail "$report")" "$(sum cancelled "$report")" "$(sum skipped "$report")"
}

# The number in node's closing line `# pass 12`.
sum() { sed -n "s/^# $1 //p" "$2" | tail -1; }

run_python() {
  local report=$logs/websockets ended=0
  .venv/bin/python websockets_test.py --counts "$report" || ended=$?
  touch "$report"
  # shellcheck disable=SC2046 # The report has three numbers, or is empty if the tests ended early.
  set -- $(cat "$report")
  count "$ended" "${1:-}" "${2:-}" 0 "${3:-}"
}

run_rolling() {
  if .venv/bin/python rolling.py; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

# count EXIT_CODE PASSED FAILED CANCELLED SKIPPED. A suite that exits with an error but reports no failed test counts as
# one failure.
count() {
  local bad=$((${3:-0} + ${4:-0}))
  [[ $1 -eq 0 || $bad -gt 0 ]] || bad=1
  passed=$((passed + ${2:-0})) failed=$((failed + bad)) skipped=$((skipped + ${5:-0}))
}

main
