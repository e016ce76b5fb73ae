#!/usr/bin/env bash
# What a relay costs over one hop between hubs, beside a local one: CPU of all hubs per signal, runs side by side.
#
#   benches/cross-hub.sh [HUB_BINARY [RUNS]]      PAIRS=100  SIZE=1200  SECS=5  SHARDS=1  FLIGHTS='1 16'
#
# Prints a line for each run and the medians. Shares its cores with the load generator: compare ratios, not rates.
set -euo pipefail

hub=$(realpath "${1:-target/release/peerpigeon}")
runs=${2:-3}
pairs=${PAIRS:-100} size=${SIZE:-1200} secs=${SECS:-5}
work=$(mktemp -d)
pids=()
trap '[[ ${#pids[@]} -eq 0 ]] || kill "${pids[@]}" 2>/dev/null; rm -rf "$work"' EXIT

# start PORT BOOTSTRAP
start() {
  env HOST=127.0.0.1 PORT="$1" SHARDS="${SHARDS:-1}" IS_HUB=true MESH_TOKEN=bench BOOTSTRAP_HUBS="$2" MAX_CONNECTIONS=5000 \
    MESSAGE_RATE=1000000 "$hub" serve 2>"$work/$1.log" &
  pids+=($!)
  for _ in $(seq 200); do
    curl -sf "http://127.0.0.1:$1/readyz" >/dev/null && return
    sleep 0.05
  done
  cat "$work/$1.log" >&2
  exit 1
}

# CPU seconds of the processes so far, by the kernel's ticks.
cpu() { for pid in "$@"; do cut -d' ' -f14,15 "/proc/$pid/stat"; done | awk -v hz="$(getconf CLK_TCK)" '{ s += $1 + $2 } END { print s / hz }'; }

# measure NAME IN_FLIGHT HUB...: one line `NAME IN_FLIGHT relays/s us-per-signal`
measure() {
  local name=$1 flight=$2 urls=() before after
  shift 2
  for port in "$@"; do urls+=(--hub "ws://127.0.0.1:$port"); done
  before=$(cpu "${pids[@]}")
  "$hub" load-test "${urls[@]}" --scenario relay --peers $((2 * pairs)) --in-flight "$flight" --size "$size" \
    --duration "$secs" --json "$work/run.json" >"$work/run.log" || { cat "$work/run.log" >&2; exit 1; }
  after=$(cpu "${pids[@]}")
  python3 - "$work/run.json" "$before" "$after" "$name" "$flight" <<'PY' | tee -a "$work/results"
import json, sys
path, before, after, name, flight = sys.argv[1:]
run = json.load(open(path))
print(name, flight, round(run["relaysPerSec"]), round((float(after) - float(before)) * 1e6 / run["relays"], 2))
PY
}

ports=($(python3 -c 'import socket
s = [socket.socket() for _ in range(3)]
[x.bind(("127.0.0.1", 0)) for x in s]
print(*[x.getsockname()[1] for x in s])'))

for flight in ${FLIGHTS:-1 16}; do
  for _ in $(seq "$runs"); do
    start "${ports[0]}" "" && measure local "$flight" "${ports[0]}"
    kill "${pids[@]}" && wait "${pids[@]}" 2>/dev/null || true
    pids=()
    start "${ports[1]}" "" && start "${ports[2]}" "ws://127.0.0.1:${ports[1]}"
    sleep 2
    measure cross-hub "$flight" "${ports[1]}" "${ports[2]}"
    kill "${pids[@]}" && wait "${pids[@]}" 2>/dev/null || true
    pids=()
  done
done

python3 - "$work/results" <<'PY'
import statistics, sys
runs = {}
for line in open(sys.argv[1]):
    name, flight, rate, cost = line.split()
    runs.setdefault((flight, name), []).append((float(cost), float(rate)))
for flight in sorted({flight for flight, _ in runs}, key=int):
    cost = {name: statistics.median(c for c, _ in runs[flight, name]) for name in ("local", "cross-hub")}
    print(f"in flight {flight}: local {cost['local']:.2f} us, cross-hub {cost['cross-hub']:.2f} us of CPU a signal, ratio {cost['cross-hub'] / cost['local']:.2f}")
PY
