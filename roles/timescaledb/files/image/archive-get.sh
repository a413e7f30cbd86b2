#!/bin/bash
# restore_command with pgBackRest: cryptopip-archive-get %f %p
#
# PostgreSQL takes exit codes 1 to 125 as the end of the WAL, and pgBackRest ends with one of them when its repository is away or
# torn, which would end a recovery early and silently. Here only a file that a readable archive lacks ends it (1); all else stops
# the server (200).
set -uo pipefail

# A server runs it in its own data folder, which is not the live cluster's where a backup is restored beside it.
here=()
[[ ! -f global/pg_control ]] || here=("--pg1-path=$PWD")

status=0
pgbackrest --log-level-console=off --log-level-stderr=warn "${here[@]}" archive-get "$1" "$2" || status=$?
case $status in
0 | 1) exit "$status" ;;
*)
    echo "cryptopip-archive-get: pgbackrest ended with $status for $1: recovery stops here, it is not at its end" >&2
    exit 200
    ;;
esac
