#!/usr/bin/env bash
# cassandra/health.sh PORT [USER PASSWORD]: succeeds when a node opens a CQL session, logged in where USER is given;
# needs no JVM and no client.
set -euo pipefail
port=${1:?port} user=${2-} password=${3-}
exec 3<>"/dev/tcp/127.0.0.1/$port"
# The opcode of the next reply; its body is read away.
opcode() {
    local head length
    head=$(timeout 5 head -c 9 <&3 | od -An -tx1 | tr -d ' \n')
    [ ${#head} = 18 ] || return 1
    length=$((16#${head:10:8}))
    if [ "$length" -gt 0 ]; then timeout 5 head -c "$length" <&3 >/dev/null; fi
    echo "${head:8:2}"
}
# STARTUP of protocol version 4: {CQL_VERSION: 3.0.0}.
printf '\x04\x00\x00\x01\x01\x00\x00\x00\x16\x00\x01\x00\x0bCQL_VERSION\x00\x053.0.0' >&3
case $(opcode) in
    02) exit 0 ;; # READY: nobody has to log in
    03) ;;        # AUTHENTICATE
    *) exit 1 ;;
esac
if [ -z "$user" ]; then exit 0; fi
# AUTH_RESPONSE of SASL PLAIN: the lengths of body and token, then the token.
token=$((${#user} + ${#password} + 2))
lengths=$(printf '%08x%08x' $((token + 4)) "$token" | sed 's/../\\x&/g')
printf '\x04\x00\x00\x02\x0f' >&3
printf "$lengths" >&3
printf '\0%s\0%s' "$user" "$password" >&3
[ "$(opcode)" = 10 ] # AUTH_SUCCESS
