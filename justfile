# Common commands.

default: test

# Runs a hub on port 8080.
run *args:
    cargo run --release -- {{args}}

# Runs all suites of tests except `container`.
test:
    tests/run.sh

# Runs all checks that a commit must pass.
ci:
    .ci/run

# Runs the simulator for many seeds.
sim seeds="100000":
    SIM_SEEDS={{seeds}} cargo test --test sim -- --nocapture

# Fuzzes one target, guided by coverage: `just fuzz relay`, `just fuzz tls_door 3600`. Needs cargo-fuzz. `just fuzz-keep
# relay` then adds the inputs that reach new code to the corpus of the repository.
fuzz target seconds="300":
    mkdir -p fuzz/target/found/{{target}}
    RUSTC_BOOTSTRAP=1 nice -n 19 cargo fuzz run -s none {{target}} fuzz/target/found/{{target}} fuzz/corpus/{{target}} -- -max_total_time={{seconds}} -max_len=1024 -timeout=30

fuzz-keep target:
    RUSTC_BOOTSTRAP=1 cargo fuzz run -s none {{target}} fuzz/corpus/{{target}} fuzz/target/found/{{target}} -- -merge=1

# Runs the benchmarks, in comparison with a bare epoll relay and the usual design: `just bench --quick`, `just bench
# --only relay`.
bench *args:
    cargo build --release
    cargo run --release -p peerpigeon-bench -- suite {{args}}

# Writes the table in docs/performance.md.
bench-docs:
    cargo build --release
    cargo run --release -p peerpigeon-bench -- suite --md docs/performance.md --json target/bench.json

fmt:
    cargo fmt --all

# Lists changes of the rules that no test notices: `just mutants --shard 3/100`, `just mutants -f proto/src/codec.rs`.
# Needs cargo-mutants. A complete run takes days, so it is not part of the gate.
mutants *args:
    CARGO_PROFILE_TEST_DEBUG=0 SIM_SEEDS=20 nice -n 19 cargo mutants -p peerpigeon-proto -e 'proto/src/limits/**' -e 'proto/src/**/audit.rs' {{args}} -- --lib --test rules -- --skip planted --skip every_file
