#!/usr/bin/env bash
# Runs the Autobahn test suite (RFC 6455, cases 1 to 7 and 10) against an echo server that uses the sessions of a shard:
# `cargo run -p peerpigeon-shard --example echo`.
#
# The suite runs twice, without and with TLS. With TLS, cases 6 and 10 are left out, because they vary only the texts
# and lengths of messages, not their frames.
#
# AUTOBAHN_URL=ws://host:port  test this server instead
# AUTOBAHN_CASES='"6.*"'       run only these cases
#
# The suite needs Python 2.7. The suite writes reports to target/autobahn/reports/index.html (and reports-tls).
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
venv=$target/autobahn-venv
work=$target/autobahn

find_python() {
    local python
    for python in python2.7 "$HOME"/.pyenv/versions/2.7*/bin/python; do
        # The command may be a pyenv shim without an installed Python 2.7.
        if [[ $("$python" -c 'import sys; print(sys.version_info[:2] == (2, 7))' 2>/dev/null) == True ]]; then
            echo "$python"
            return
        fi
    done
    return 1
}

# Installs packages with many retries, so that the suite does not fail if the package index is slow or down for a
# minute.
fetch() { # python, arguments of `pip install`
    PYTHONWARNINGS=ignore "$1" -m pip install --quiet --disable-pip-version-check --timeout 60 --retries 10 "${@:2}"
}

install() {
    mkdir -p "$target"
    # virtualenv is installed into its own directory, so that the interpreter's packages stay unchanged.
    fetch "$1" --upgrade --target "$venv-bootstrap" 'virtualenv<20.22'
    PYTHONPATH=$venv-bootstrap "$1" -m virtualenv --quiet "$venv"
    fetch "$venv/bin/python" 'autobahntestsuite==25.10.1'
}

server=
stop_server() {
    if [[ -n $server ]]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        server=
    fi
}

start_server() { # scheme, options of the server
    # Uses the test profile, which has debug checks and which `cargo test` has already built.
    cargo build --quiet --profile test --package peerpigeon-shard --example echo
    # The background process may create the file later than `sed` reads it.
    : >"$work/server.log"
    "$target/debug/examples/echo" --port 0 "${@:2}" >"$work/server.log" &
    server=$!
    local address
    for _ in {1..300}; do
        address=$(sed -n 's/^listening on //p' "$work/server.log")
        if [[ -n $address ]]; then
            url="$1://$address/ws?peerId=$(printf '%040d' 0)"
            return
        fi
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    echo "autobahn: the echo server did not print its address" >&2
    return 1
}

if ! python=$(find_python); then
    echo "SKIP autobahn: no Python 2.7 here"
    exit 0
fi
[[ -x $venv/bin/wstest ]] || install "$python"

rm -rf "$work"
mkdir -p "$work"
trap stop_server EXIT

run_cases() { # suffix of the reports, cases
cat >"$work/spec.json" <<JSON
{
  "outdir": "$work/reports$1",
  "servers": [{"agent": "peerpigeon", "url": "$url"}],
  "cases": [$2],
  "exclude-cases": [],
  "exclude-agent-cases": {}
}
JSON
if ! "$venv/bin/wstest" --mode fuzzingclient --spec "$work/spec.json" >"$work/wstest$1.log" 2>&1; then
    tail -n 20 "$work/wstest$1.log" >&2
    return 1
fi

"$venv/bin/python" - "$work/reports$1/index.json" "$url" <<'PYTHON'
from __future__ import print_function
import json, sys

cases = json.load(open(sys.argv[1])).get("peerpigeon", {})
counts = {"OK": 0, "NON-STRICT": 0, "INFORMATIONAL": 0, "FAILED": 0}
for name in sorted(cases, key=lambda name: [int(part) for part in name.split(".")]):
    behavior, close = cases[name]["behavior"], cases[name]["behaviorClose"]
    # A case passes only with the results below. All other results, such as FAILED, UNCLEAN, WRONG CODE and
    # UNIMPLEMENTED, are failures.
    good = behavior in ("OK", "NON-STRICT", "INFORMATIONAL") and close in ("OK", "INFORMATIONAL")
    counts[behavior if good else "FAILED"] += 1
    if not good or behavior == "NON-STRICT":
        print("autobahn: case %s: %s, close %s" % (name, behavior, close))
print("autobahn, " + sys.argv[2].split(":")[0] + ": " + ", ".join("%d %s" % (counts[end], end) for end in ("OK", "NON-STRICT", "INFORMATIONAL", "FAILED")))
sys.exit(counts["FAILED"] > 0 or not cases)
PYTHON
}

all='"1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"'
url=${AUTOBAHN_URL:-}
if [[ -n $url ]]; then
    run_cases "" "${AUTOBAHN_CASES:-$all}"
    exit
fi
start_server ws
run_cases "" "${AUTOBAHN_CASES:-$all}"
stop_server
start_server wss --tls
frames='"1.*", "2.*", "3.*", "4.*", "5.*", "7.*"'
run_cases -tls "${AUTOBAHN_CASES:-$frames}"
