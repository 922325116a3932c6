# Sourced by the scripts beside it: build output outside the checkout, and the system packages.
: "${CARGO_TARGET_DIR:=$HOME/.cache/falaj/target}"
export CARGO_TARGET_DIR
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# need COMMAND:PACKAGE .. installs what is missing by apt as root; else says what to install.
need() {
    local missing=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing: ${missing[*]}" >&2
        apt-get update -qq >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
    else
        echo "error: missing programs" >&2
        echo "hint: install these packages: ${missing[*]}" >&2
        exit 1
    fi
}

if ! command -v cargo >/dev/null; then
    echo "error: there is no Rust here" >&2
    echo "hint: install Rust 1.95 or newer, see https://rustup.rs" >&2
    exit 1
fi
