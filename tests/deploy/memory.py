"""Estimates how much memory a hub needs with its settings, and checks that deploy/fly.toml provides it.

    memory.py FLY_TOML

The figures are from docs/operations.md#how-much-a-hub-needs. They assume that each peer is in one network, and that
peers announce little data beyond what ANNOUNCE_BUDGET_BYTES counts. They leave out incomplete messages
(RECEIVE_BUDGET_BYTES)."""

import sys
import tomllib

# Memory in bytes of: the program; a peer of this hub, with two shards; the kernel's buffers for its connection; a peer
# of another hub.
PROGRAM, PEER, SOCKET, REMOTE_PEER = 10e6, 2.8e3, 4e3, 1.5e3
# Safety factor, for example for fragmentation and for new connections that overlap with old ones.
ROOM = 1.25


def needed(told, hubs):
    """Returns the memory in bytes that a hub needs if all hubs of the mesh are full, with a reserve."""
    connections = int(told["MAX_CONNECTIONS"])
    here = PROGRAM + connections * (PEER + SOCKET) + int(told["SEND_BUDGET_BYTES"])
    return ROOM * (here + (hubs - 1) * connections * REMOTE_PEER + hubs * int(told["ANNOUNCE_BUDGET_BYTES"]))


def presence(told, hubs):
    """Returns the smallest MESH_PRESENCE_BYTES that is enough for the peers of all other hubs when they are full.

    One other hub may use at most half of it. The hub counts 512 B for a peer, 256 B for its membership, and 300 B for
    its message (proto/src/limits/relay.rs)."""
    hub = int(told["MAX_CONNECTIONS"]) * (512 + 256 + 300) + int(told["ANNOUNCE_BUDGET_BYTES"])
    return hub * max(hubs - 1, 2) if hubs > 1 else 0


# Maximum number of machines that the check assumes for the app on Fly.io.
FLY_MACHINES = 6


def fly(file):
    with open(file, "rb") as text:
        said = tomllib.load(text)
    told = said["env"]
    problems = []
    needs, size = needed(told, FLY_MACHINES), int(said["vm"][0]["memory"].removesuffix("mb")) << 20
    if needs > size:
        problems.append(f"{FLY_MACHINES} machines may need {needs / 1e6:.0f} MB each, but have {size / 1e6:.0f} MB")
    if presence(told, FLY_MACHINES) > int(told["MESH_PRESENCE_BYTES"]):
        problems.append(f"MESH_PRESENCE_BYTES is less than {presence(told, FLY_MACHINES)}")
    if told["MESH_DNS"] != f"{said['app']}.internal:{told['MESH_PORT']}":
        problems.append(f"MESH_DNS={told['MESH_DNS']} is not the app {said['app']}")
    if told["HOST"] != "::":
        problems.append(f"HOST={told['HOST']}: machines reach each other by IPv6, and Fly's proxy reaches them by IPv4")
    if int(said["kill_timeout"].removesuffix("s")) <= int(told["DRAIN_SECS"]) + 4:
        problems.append("kill_timeout is shorter than a hub needs to stop")
    if int(told["MAX_CONNECTIONS"]) < said["http_service"]["concurrency"]["hard_limit"]:
        problems.append("the proxy allows more connections than MAX_CONNECTIONS")
    if said["http_service"]["internal_port"] != int(told["PORT"]) or said["metrics"]["port"] != int(told["ADMIN_PORT"]):
        problems.append("internal_port must be PORT, and the port of the metrics must be ADMIN_PORT")
    for problem in problems:
        print(f"  {problem}")
    print(f"  {needs / 1e6:.0f} of {size / 1e6:.0f} MB with {FLY_MACHINES} machines, {len(problems)} problems")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(fly(sys.argv[1]))
