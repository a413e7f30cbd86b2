#!/bin/bash
# Starts PostgreSQL in the container; makes the cluster on the first start, and never on a later one.
#
# What it relies on: PGDATA appears under its name only once initdb has finished (it is made beside it and renamed), so a
# start that was killed half-way is recognised and repeated. What it refuses, because guessing would lose data: a PGDATA of
# another major version, and an empty PGDATA beside a WAL folder in use (a file system that was not mounted).
set -euo pipefail

readonly major=17
readonly wal=/var/lib/postgresql/wal/pg_wal
readonly config=/etc/cryptopip/postgresql/postgresql.conf
readonly unfinished="${PGDATA}.unfinished"

fail() {
    printf 'cryptopip-postgres: %s\n' "$@" >&2
    exit 1
}

[[ ${1:-postgres} == postgres ]] || exec "$@"

for folder in "$(dirname "$PGDATA")" "$(dirname "$wal")" "$PGHOST"; do
    [[ -w $folder ]] || fail "$folder is not writable for uid $(id -u)" \
        "expected the folder bound there from the host to belong to uid and gid 5432: chown 5432:5432 it"
done
[[ -r $config ]] || fail "$config is missing or not readable for uid $(id -u): run the timescaledb role again"

if [[ -s $PGDATA/PG_VERSION ]]; then
    found=$(<"$PGDATA/PG_VERSION")
    [[ $found == "$major" ]] || fail "$PGDATA holds a cluster of PostgreSQL $found, this image runs PostgreSQL $major" \
        "start the image of PostgreSQL $found again, or migrate with pg_upgrade or a logical backup"
else
    [[ ! -e $PGDATA ]] || fail "$PGDATA exists but holds no cluster (no PG_VERSION): move it away, or restore a backup into it"
    if [[ -e $unfinished ]]; then
        echo "cryptopip-postgres: an earlier initdb was interrupted, repeating it" >&2
        rm -rf "$unfinished" "$wal"
    elif [[ -e $wal ]]; then
        fail "$PGDATA is missing but $wal holds WAL: is the data file system mounted?" \
            "mount it, or move the WAL folder away if the cluster is really to be made anew"
    fi
    mkdir -m 0700 "$unfinished"
    # The builtin locale does not change with the C library, so an index stays sorted across image upgrades.
    initdb --pgdata="$unfinished" --waldir="$wal" --data-checksums --encoding=UTF8 --locale=C.UTF-8 \
        --locale-provider=builtin --builtin-locale=C.UTF-8 --username=postgres --auth-local=peer --auth-host=scram-sha-256
    sync
    mv "$unfinished" "$PGDATA"
fi

# The settings live outside PGDATA; ALTER SYSTEM (postgresql.auto.conf) still beats them.
grep -qxF "include '$config'" "$PGDATA/postgresql.conf" || printf "\ninclude '%s'\n" "$config" >>"$PGDATA/postgresql.conf"

exec "$@"
