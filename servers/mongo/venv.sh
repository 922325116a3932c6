#!/usr/bin/env bash
# mongo/venv.sh: the Python environment with the packages of requirements.txt, made once; prints its folder.
# PyPI may drop pre-releases: wheels that lie in FALAJ_WHEELS, or beside the recorded samples, are taken as well.
set -euo pipefail
mongo=$(cd "$(dirname "$0")" && pwd)
samples=${FALAJ_SAMPLES:-$mongo/../../../shared/data/random-users}
wheels=${FALAJ_WHEELS:-$samples/../../servers/mongo/wheels}
if [ -d "$wheels" ]; then export PIP_FIND_LINKS="$wheels${PIP_FIND_LINKS:+ $PIP_FIND_LINKS}"; fi
exec "$mongo/../venv.sh" "$mongo/requirements.txt"
