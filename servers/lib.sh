# Sourced by the scripts beside it. Needs bash, setsid and flock (util-linux), sha256sum.
#
# Always: what is stopped is what was started here: a process is named by its id AND its start time,
# so an id that the system gave to somebody else since is never a match.

# Where jars and virtual environments are kept, outside every checkout.
: "${FALAJ_SERVERS:=$HOME/.cache/falaj/servers}"

# fail MESSAGE [HINT]
fail() {
    echo "error: $1" >&2
    if [ -n "${2-}" ]; then echo "hint: $2" >&2; fi
    exit 1
}

# once FOLDER FUNCTION ARGS.. runs FUNCTION in a new, empty FOLDER; nothing where FOLDER is complete already.
# Several callers at once wait for the first; a run that broke off leaves no FOLDER that looks complete.
once() {
    local folder=$1
    shift
    [ -e "$folder/.complete" ] && return
    mkdir -p "$(dirname "$folder")"
    (
        flock 9
        [ -e "$folder/.complete" ] && exit
        rm -rf "$folder"
        mkdir "$folder"
        cd "$folder"
        "$@" || fail "\`$folder\` could not be made" "look at its log, mend the cause, start again"
        : >.complete
    ) 9>"$folder.lock"
}

# digest FILE.. a short name for their contents
digest() { cat "$@" | sha256sum | cut -c1-16; }

# started_at PID: when it started, in clock ticks since boot; fails where there is none
started_at() {
    local stat pid=$1
    stat=$(cat "/proc/$pid/stat" 2>/dev/null) || return 1
    # The name may hold blanks and parentheses: the fields start behind the last one.
    stat=${stat##*) }
    # shellcheck disable=SC2086
    set -- $stat
    # A killed JVM is a zombie first, while its other threads still hold the sockets.
    if [ "$1" = Z ] && [ "$(ls "/proc/$pid/task" 2>/dev/null | wc -l)" -le 1 ]; then return 1; fi
    echo "${20}"
}

# alive WORK: whether the process that was started in WORK is there
alive() {
    local pid start
    [ -s "$1/pid" ] || return 1
    read -r pid start <"$1/pid"
    [ -n "$start" ] && [ "$(started_at "$pid")" = "$start" ]
}

# launch WORK COMMAND.. as a session of its own, output to WORK/log
launch() {
    local work=$1
    shift
    # setsid replaces itself here, so $! is the server; 8 is the lock of a start and not for the server.
    setsid "$@" >>"$work/log" 2>&1 </dev/null 8>&- &
    echo "$! $(started_at $!)" >"$work/pid"
    disown
    now_ms >"$work/launched"
}

now_ms() { date +%s%3N; }

# wait_ready WORK SECONDS CHECK.. until CHECK succeeds; fails at once when the process has ended.
# How long it took since `launch` is kept in WORK/starts: called again, the last one counts.
wait_ready() {
    local work=$1 end=$((SECONDS + $2))
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ! alive "$work"; then
            tail -n 30 "$work/log" >&2
            fail "it ended while it started; above is the end of its log"
        fi
        if [ "$SECONDS" -ge "$end" ]; then
            tail -n 30 "$work/log" >&2
            fail "it is not ready in time; above is the end of its log"
        fi
        sleep 0.1
    done
    local launched
    launched=$(cat "$work/launched" 2>/dev/null) || return 0
    echo "$launched $(($(now_ms) - launched))" >>"$work/starts"
}

# note WORK NAME: one line, how long the server took to start and how much memory it has held at most
note() {
    [ -s "$1/starts" ] || return 0
    touch "$1/peaks"
    awk -v name="$2" '
        NF == 1 { if ($1 > peak) peak = $1; next }
        { took[$1] = $2 }
        END {
            for (at in took) { n++; if (took[at] > most) most = took[at] }
            times = n > 1 ? sprintf("%d times in at most", n) : "in"
            printf "%s: started %s %.1f s, peak memory %d MiB\n", name, times, most / 1000, peak / 1024
        }' "$1/peaks" "$1/starts"
}

# stop WORK [SIGNAL] TERM by default; waits for the end, and insists after 30 s.
# The most memory it has held, in KiB, is kept in WORK/peaks.
stop() {
    local pid start ticks
    alive "$1" || return 0
    read -r pid start <"$1/pid"
    awk '/^VmHWM:/ { print $2 }' "/proc/$pid/status" >>"$1/peaks" 2>/dev/null || true
    kill -s "${2:-TERM}" "$pid"
    for ticks in {1..300}; do
        alive "$1" || return 0
        sleep 0.1
    done
    kill -s KILL "$pid"
    while alive "$1"; do sleep 0.1; done
}

# free_ports PORT.. fails where something listens already: it would answer the health check in our place
free_ports() {
    local port
    for port; do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            fail "port $port is taken by another process" "choose another port"
        fi
    done
}
