# What you type most.

default: test

# The hub, on port 8080.
run *args:
    cargo run --release -- {{args}}

# Everything that is tested.
test:
    tests/run.sh

# The gate.
ci:
    .ci/run

# A long run of the simulator.
sim seeds="100000":
    SIM_SEEDS={{seeds}} cargo test --test sim -- --nocapture

# What the hub costs, beside a bare epoll relay and the usual design: `just bench --quick`, `just bench --only relay`.
bench *args:
    cargo build --release
    cargo run --release -p peerpigeon-bench -- suite {{args}}

# The table in docs/performance.md.
bench-docs:
    cargo build --release
    cargo run --release -p peerpigeon-bench -- suite --md docs/performance.md --json target/bench.json

fmt:
    cargo fmt --all
