# The same commands as in the README, and what a change should pass before it is sent.

# Run the demo
demo *ARGS:
    scripts/demo {{ARGS}}

# Run all tests
test *ARGS:
    scripts/test {{ARGS}}

# All tests, with the long runs of those that have one: see CONTRIBUTING.md
long *ARGS:
    FALAJ_LONG=1 scripts/test {{ARGS}}

# Ten minutes of random, truncated and mutated requests against the Kafka listener
fuzz:
    FALAJ_LONG=1 scripts/test --test it -- garbage::spoilt --nocapture

# kill -9 and absences of falaj, Kafka, Cassandra and MongoDB, 20 rounds each
faults:
    FALAJ_LONG=1 scripts/test --test it -- --nocapture --test-threads 1 kill_9 away_for_long

# Formatting and lints
lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets --locked

# Everything
check: lint test

# Measure; see bench/README.md
bench *ARGS:
    bench/run {{ARGS}}

# Real servers for trying things out; see servers/README.md
servers ACT *ARGS:
    servers/servers.sh {{ACT}} {{ARGS}}
