# shellcheck shell=bash
# What every command in bin/ shares: messages with times, one way to fail, and the paths. Sourced, never run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
cache=$root/.cache
venv=$root/.venv
# shellcheck disable=SC2034  # read by the commands that source this file
fleet_label=cryptopip.fleet
# Tells this checkout's fleets from those of other checkouts on the same machine.
checkout=$(sha256sum <<<"$root" | cut -c1-6)
SECONDS=0

# elapsed: minutes and seconds since the command started, as 3:07.
elapsed() { printf '%d:%02d' $((SECONDS / 60)) $((SECONDS % 60)); }

# fleet_id NAME: what a fleet of this checkout is called among all containers and networks of the machine.
fleet_id() { echo "$1-$checkout"; }

# step TEXT...: one line of visible progress.
step() { printf '\033[1m[%5s]\033[0m %s\n' "$(elapsed)" "$*" >&2; }

# note TEXT...: something to know under a step.
note() { printf '        %s\n' "$*" >&2; }

# die TEXT...: what was found, what was expected, what to do; exit 3.
die() {
    printf '\033[1;31merror:\033[0m %s\n' "$*" >&2
    exit 3
}

# usage_error TEXT...: wrong arguments; exit 2.
usage_error() {
    printf 'error: %s\nTry: %s --help\n' "$*" "$0" >&2
    exit 2
}

# logged FILE COMMAND...: run quietly, keep all output in FILE, show its end when the command fails.
logged() {
    local log=$1
    shift
    mkdir -p "$(dirname "$log")"
    if ! "$@" >"$log" 2>&1 </dev/null; then
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
