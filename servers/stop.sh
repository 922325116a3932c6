#!/usr/bin/env bash
# stop.sh WORK [SIGNAL]: stops the server that was started in WORK; with KILL as a power cut of its process would.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
stop "${1:?work folder}" "${2:-TERM}"
