#!/usr/bin/env bash
# Starts the services of docker-compose.yml, except Grafana, and checks them. In the profile mesh, two peers on two hubs
# discover each other, also through the balancer and while a hub drains. Two browsers on two hubs connect. Prometheus
# has all targets and valid rules. Then the script checks the profiles redis-only and load.
#
#   tests/compose.sh [mesh] [redis-only] [load]
#
# Uses the image localhost/peerpigeon:latest that tests/container.sh has built. Publishes the services at free ports.
# Needs root, podman, docker-compose, debootstrap, curl, python3 and base images (tests/bases.sh). Prints SKIPPED and
# the reason if it cannot run.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
  echo "SKIPPED tests/compose.sh: $*"
  exit 0
}
[ "$(id -u)" = 0 ] || skip "not root"
for tool in podman docker-compose debootstrap curl python3; do command -v $tool >/dev/null || skip "$tool is missing"; done
podman image exists localhost/peerpigeon:latest || skip "no image: tests/container.sh makes it"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. tests/engine.sh
tests/bases.sh || skip "no base images"

# Sets free ports, because other programs may use the default ports.
ports() {
  python3 -c 'import socket, sys
sockets = [socket.socket() for name in sys.argv[1:]]
for each in sockets: each.bind(("127.0.0.1", 0))
for name, each in zip(sys.argv[1:], sockets): print(f"{name}={each.getsockname()[1]}")' \
    PUBLISH_BALANCER PUBLISH_HUB_1 PUBLISH_HUB_2 PUBLISH_HUB_3 PUBLISH_REDIS_BALANCER PUBLISH_REDIS_HUB_1 PUBLISH_REDIS_HUB_2 PUBLISH_BALANCER_STATS PUBLISH_PROMETHEUS PUBLISH_GRAFANA
}
set -a
eval "$(ports)"
set +a
podman system service --time=0 "unix://$work/podman.sock" 2>"$work/service.log" &
service=$!
export DOCKER_HOST=unix://$work/podman.sock COMPOSE_PROJECT_NAME=peerpigeon-trial-$$
# Podman refuses a file limit above the hard limit of this machine.
LOAD_NOFILE=$(ulimit -Hn)
[ "$LOAD_NOFILE" != unlimited ] && [ "$LOAD_NOFILE" -lt 65536 ] || LOAD_NOFILE=65536
export LOAD_NOFILE
# If any limit is set, podman also requests a process limit, which may be too high for this machine.
printf 'services:\n  load-hub-1: &few\n    ulimits: { nproc: 4096 }\n  load-hub-2: *few\n  load-test: *few\n' >"$work/limits.yml"
export COMPOSE_FILE=$PWD/docker-compose.yml:$work/limits.yml
compose() { COMPOSE_PROFILES=$profile docker-compose --no-ansi "$@" >>"$work/compose.log" 2>&1; }
profile=mesh,redis-only,load
finish() {
  profile=mesh,redis-only,load compose down --volumes --timeout 5 || true
  kill "$service" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
fail() {
  echo "FAILED: $*"
  tail -15 "$work/compose.log"
  exit 1
}
until [ -S "$work/podman.sock" ]; do sleep 0.1; done

soon() { # seconds, what, command: waits until the command succeeds
  local left=$(($1 * 5)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || fail "$what"
    sleep 0.2
  done
  echo "$what"
}
ready() { curl -fsS -m 2 "http://127.0.0.1:$1/readyz"; }
peer() { podman run --rm --no-healthcheck --network=host --read-only localhost/peerpigeon:latest peer "$@"; }
meet() { # the ports at which the two peers connect
  local first second
  first=$(printf %040d "$RANDOM$RANDOM") second=$(printf %040d "1$RANDOM$RANDOM")
  peer --hub "ws://127.0.0.1:$1" --peer-id "$first" --network trial --listen 8s --json >"$work/first" &
  local one=$!
  peer --hub "ws://127.0.0.1:$2" --peer-id "$second" --network trial --listen 8s --json >"$work/second" || fail "a peer cannot connect to $2"
  wait "$one" || fail "a peer cannot connect to $1"
  grep -q "$second" "$work/first" || fail "the peer at $1 has not discovered the peer at $2"
  grep -q "$first" "$work/second" || fail "the peer at $2 has not discovered the peer at $1"
  echo "a peer at $1 and a peer at $2 have met"
}
ask() { # a query: prints its results, one number per line
  curl -fsS -m 5 --data-urlencode "query=$1" http://127.0.0.1:$PUBLISH_PROMETHEUS/api/v1/query |
    python3 -c 'import json, sys; [print(each["value"][1]) for each in json.load(sys.stdin)["data"]["result"]]'
}
says() { [ "$(ask "$1" | sort -u | tr '\n' ' ')" = "$2 " ]; }
targets() { # expected number of targets, all of them up
  curl -fsS -m 5 "http://127.0.0.1:$PUBLISH_PROMETHEUS/api/v1/targets?state=active" |
    python3 -c 'import json, sys
found = [each["health"] for each in json.load(sys.stdin)["data"]["activeTargets"]]
sys.exit(found != ["up"] * int(sys.argv[1]))' "$1"
}
rules() {
  curl -fsS -m 5 http://127.0.0.1:$PUBLISH_PROMETHEUS/api/v1/rules |
    python3 -c 'import json, sys
rules = [rule for group in json.load(sys.stdin)["data"]["groups"] for rule in group["rules"]]
bad = [rule["name"] for rule in rules if rule["health"] != "ok" or rule["state"] == "firing"]
print(bad)
sys.exit(len(rules) < 30 or bool(bad))'
}

for profile in ${*:-mesh redis-only load}; do
  echo "--- $profile"
  case $profile in
    mesh)
      # Debian has no package of Grafana.
      compose up --no-build -d hub-1 hub-2 hub-3 balancer prometheus || fail "compose up"
      for port in "$PUBLISH_HUB_1" "$PUBLISH_HUB_2" "$PUBLISH_HUB_3"; do soon 30 "the hub at $port is ready" ready $port; done
      soon 30 "the balancer has hubs" ready "$PUBLISH_BALANCER"
      soon 60 "Prometheus has five targets up: three hubs, the balancer, itself" targets 5
      soon 60 "each hub knows two others" says peerpigeon_mesh_hubs 2
      meet "$PUBLISH_HUB_1" "$PUBLISH_HUB_2"
      meet "$PUBLISH_BALANCER" "$PUBLISH_HUB_3"
      HUBS_AT=ws://localhost:$PUBLISH_HUB_1,ws://localhost:$PUBLISH_HUB_3 tests/interop/run.sh none browser >"$work/browsers" 2>&1 || { tail -40 "$work/browsers"; fail "two browsers on two hubs do not connect"; }
      grep -E '^SKIP|talk to each other' "$work/browsers" | sort -u
      soon 60 "Prometheus evaluates the rules, and no alert fires" rules
      if [ -n "${DRAW:-}" ]; then "$DRAW" || fail "$DRAW"; fi
      COMPOSE_PROFILES=mesh docker-compose --no-ansi stop hub-1 >>"$work/compose.log" 2>&1 &
      stopping=$!
      sleep 2
      meet "$PUBLISH_BALANCER" "$PUBLISH_HUB_2"
      wait "$stopping" || fail "docker-compose cannot stop hub-1"
      code=$(podman ps -a --filter "name=${COMPOSE_PROJECT_NAME}_hub-1" --format '{{.ExitCode}}')
      [ "$code" = 0 ] || fail "a hub that is stopped exits with $code"
      echo "hub-1 drained and exited with 0, and no peer lost its connection"
      ;;
    redis-only)
      compose up --no-build -d redis redis-hub-1 redis-hub-2 balancer prometheus || fail "compose up"
      for port in "$PUBLISH_REDIS_HUB_1" "$PUBLISH_REDIS_HUB_2"; do soon 30 "the hub at $port is ready" ready $port; done
      soon 30 "the balancer has hubs" ready "$PUBLISH_REDIS_BALANCER"
      soon 60 "both hubs know each other" says 'peerpigeon_mesh_hubs{job="peerpigeon-redis-only"}' 1
      soon 30 "both hubs are connected to Redis" says 'peerpigeon_redis_connected{job="peerpigeon-redis-only"}' 1
      soon 30 "the hubs have no links" says 'sum(peerpigeon_links{job="peerpigeon-redis-only"})' 0
      meet "$PUBLISH_REDIS_HUB_1" "$PUBLISH_REDIS_HUB_2"
      ;;
    load)
      export LOAD_PEERS=60 LOAD_DURATION=5
      compose up --no-build -d load-hub-1 load-hub-2 || fail "compose up"
      # Without systemd, podman does not run health checks by itself.
      for hub in 1 2; do soon 30 "load-hub-$hub is healthy" podman healthcheck run "${COMPOSE_PROJECT_NAME}_load-hub-${hub}_1"; done
      timeout 60 env COMPOSE_PROFILES=load docker-compose --no-ansi up --no-build --exit-code-from load-test load-test >"$work/load" 2>&1 || { tail -20 "$work/load"; fail "load-test"; }
      grep -oE '(relays|PASSED).*' "$work/load" || fail "load-test did not pass"
      ;;
    *) fail "no profile is called $profile" ;;
  esac
done
echo "tests/compose.sh passed"
