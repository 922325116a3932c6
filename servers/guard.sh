#!/usr/bin/env bash
# guard.sh WORK: waits for the end of its standard input, then kills the server that was started in WORK and removes WORK.
# A test holds the other end: however the test ends, by its own or kill -9, no server and no folder is left behind.
# The last thing is a line on the test's stderr: how long the start took, and the peak of memory.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
work=${1:?work folder}
trap '' INT TERM HUP PIPE
while read -r _; do :; done
# A start that is under way would otherwise put its server there after we looked.
exec 8>"$work/starting"
flock 8
stop "$work" KILL
# WORK is `falaj-NAME-RANDOM`. Whoever read stderr may be gone.
name=$(basename "$work")
name=${name#falaj-}
note "$work" "${name%-*}" >&2 || true
rm -rf "$work"
