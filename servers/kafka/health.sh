#!/usr/bin/env bash
# kafka/health.sh PORT: succeeds when a broker answers an ApiVersions request; needs no JVM and no client.
set -euo pipefail
exec 3<>"/dev/tcp/127.0.0.1/${1:?port}"
# Size 10, api 18, version 0, correlation 1, no client id.
printf '\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x01\xff\xff' >&3
# Size, correlation 1, error 0.
reply=$(timeout 5 head -c 10 <&3 | od -An -tx1 | tr -d ' \n')
[ "${reply:8:12}" = 000000010000 ]
