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

# What a relay between two hubs costs beside a local one.
cross-hub runs="3":
    cargo build --release && benches/cross-hub.sh target/release/peerpigeon {{runs}}

fmt:
    cargo fmt --all
