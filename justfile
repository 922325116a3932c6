# The same commands as in the README, and what a change should pass before it is sent.

# Run the demo
demo *ARGS:
    scripts/demo {{ARGS}}

# Run all tests
test *ARGS:
    scripts/test {{ARGS}}

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
