# shellcheck shell=bash
# What every command in bin/ shares: messages with times, one way to fail, and the paths. Sourced, never run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
cache=$root/.cache
venv=$root/.venv
# shellcheck disable=SC2034  # read by the commands that source this file
fleet_label=cryptopip.fleet
# Tells this checkout's fleets from those of other checkouts on the same machine.
checkout=$(sha256sum <<<"$root" | cut -c1-6)
# One clock for a command and those that it calls.
export CRYPTOPIP_BEGAN=${CRYPTOPIP_BEGAN:-$(printf '%(%s)T' -1)}
SECONDS=$(($(printf '%(%s)T' -1) - CRYPTOPIP_BEGAN))
bold="" red="" plain=""
if [[ -t 2 && -z ${NO_COLOR:-} ]]; then
    bold=$'\033[1m' red=$'\033[1;31m' plain=$'\033[0m'
fi

# elapsed: minutes and seconds since the command started, as 3:07.
elapsed() { printf '%d:%02d' $((SECONDS / 60)) $((SECONDS % 60)); }

# fleet_id NAME: what a fleet of this checkout is called among all containers and networks of the machine.
fleet_id() { echo "$1-$checkout"; }

# step TEXT...: one line of visible progress.
step() { printf '%s[%5s]%s %s\n' "$bold" "$(elapsed)" "$plain" "$*" >&2; }

# note TEXT...: something to know under a step.
note() { printf '        %s\n' "$*" >&2; }

# die TEXT...: what was found, what was expected, what to do; exit 3.
die() {
    printf '%serror:%s %s\n' "$red" "$plain" "$*" >&2
    exit 3
}

# usage_error TEXT...: wrong arguments; exit 2.
usage_error() {
    printf 'error: %s\nTry: %s --help\n' "$*" "$0" >&2
    exit 2
}

# tell_progress FILE: every 15 s the last line of FILE, until killed or the command is gone.
tell_progress() {
    local last pause
    exec {pause}<> <(:) # what is read from it never comes: a sleep that leaves no process behind
    while ! read -rt 15 -u "$pause" && kill -0 $$ 2>/dev/null; do
        last=$(tail -n 1 "$1" | tr -d '\r' | cut -c 1-100)
        note "[$(elapsed)] ${last:-still at it}"
    done
}

# logged FILE COMMAND...: run it with all output in FILE, telling how far it is; show the end when it fails.
logged() {
    local log=$1 status=0 teller
    shift
    mkdir -p "$(dirname "$log")"
    : >"$log"
    tell_progress "$log" &
    teller=$!
    "$@" >"$log" 2>&1 </dev/null || status=$?
    kill "$teller" 2>/dev/null
    wait "$teller" 2>/dev/null || true
    if ((status)); then
        tail -n 25 "$log" | sed 's/^/    | /' >&2
        die "'$*' failed; its whole output is in $log"
    fi
}

# await SECONDS WHAT COMMAND...: poll a state until it holds, or die naming it.
await() {
    local deadline=$((SECONDS + $1)) limit=$1 what=$2
    shift 2
    until "$@" >/dev/null 2>&1 </dev/null; do
        ((SECONDS < deadline)) || die "waited $limit s for $what, and it did not come; asked with: $*"
        sleep 0.3
    done
}

# digest FILE...: a short name for this content.
digest() { sha256sum "$@" | sed 's/ .*//' | sha256sum | cut -c1-12; }
