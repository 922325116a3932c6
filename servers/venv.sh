#!/usr/bin/env bash
# venv.sh REQUIREMENTS: a Python virtual environment with just those packages, made once per content of the file; prints its folder.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
requirements=$(realpath "${1:?requirements file}")
install() {
    { python3 -m venv . && bin/pip install -q --disable-pip-version-check -r "$requirements"; } >install.log 2>&1 ||
        { tail -n 20 install.log >&2 && return 1; }
}
# Another interpreter needs other wheels.
python3 -VV >/dev/null
folder=$FALAJ_SERVERS/venv-$(digest "$requirements" <(python3 -VV))
once "$folder" install
echo "$folder"
