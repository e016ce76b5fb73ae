# The container tests source this file. The file configures podman for this run only, with a configuration file in
# "$work". The runtime is runc, because crun refuses some cgroup layouts. The limits of containers are at most the hard
# limits of this process, because podman's default limits fail with "setrlimit" if the hard limits are lower.
hard() { # letter of the limit for ulimit, maximum: prints the smaller of the hard limit and the maximum
  local limit
  limit=$(ulimit "-H$1")
  if [ "$limit" = unlimited ] || [ "$limit" -gt "$2" ]; then echo "$2"; else echo "$limit"; fi
}
files=$(hard n 65536) processes=$(hard u 10000)
runtime=$(command -v runc || command -v crun) || skip "neither runc nor crun is installed"
cat >"$work/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=$files:$files", "nproc=$processes:$processes"]
[engine]
runtime = "$(basename "$runtime")"
CONF
export CONTAINERS_CONF_OVERRIDE=$work/containers.conf
# Podman before 4.5 does not support CONTAINERS_CONF_OVERRIDE.
podman_version=$(podman version --format '{{.Client.Version}}')
if [ "$(printf '%s\n4.5\n' "$podman_version" | sort -V | head -1)" = "$podman_version" ]; then export CONTAINERS_CONF=$work/containers.conf; fi
