#!/usr/bin/env bash
# mongo/health.sh PORT: succeeds when a server answers {hello: 1} with ok: 1; needs no client and no login.
set -euo pipefail
exec 3<>"/dev/tcp/127.0.0.1/${1:?port}"
# OP_MSG (2013) with one document: {hello: 1, $db: "admin"}.
printf '\x34\0\0\0\x01\0\0\0\0\0\0\0\xdd\x07\0\0\0\0\0\0\0\x1f\0\0\0\x10hello\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0' >&3
size=$(timeout 5 head -c 4 <&3 | od -An -tx1 | tr -d ' \n')
size=$((16#${size:6:2}${size:4:2}${size:2:2}${size:0:2}))
# A double named "ok" with the value 1.
timeout 5 head -c $((size - 4)) <&3 | od -An -v -tx1 | tr -d ' \n' | grep -q 016f6b00000000000000f03f
