#!/bin/bash
# Builds the database image of one edition on the control node, and keeps it as a file that hosts can load.
#
#   build_image.sh [--check] EDITION [OUTPUT_FOLDER]   EDITION: apache | community; OUTPUT_FOLDER: default build/images
#
# Leaves OUTPUT_FOLDER/cryptopip-timescaledb-EDITION.tar, .id (the image's id, which hosts are pinned to) and .inputs (the
# hash of what it was made from), and the local tag cryptopip-timescaledb:EDITION. Where the inputs are unchanged nothing is
# built, so hosts keep their image until somebody changes the files here, or removes the .tar to take in Debian's updates.
# Prints one line: "built ID", "kept ID", or, with --check, which changes nothing, "would-build ID".
# BASE_IMAGE in the environment replaces debian:trixie-slim.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
check=false
if [[ ${1:-} == --check ]]; then
    check=true
    shift
fi
edition=${1:-}
output=${2:-$here/../../../build/images}
base=${BASE_IMAGE:-debian:trixie-slim}
name=cryptopip-timescaledb-$edition
tag=cryptopip-timescaledb:$edition

case $edition in
apache | community) ;;
*)
    echo "build_image.sh: the edition is '$edition', expected apache or community" >&2
    exit 2
    ;;
esac
inputs=$(cd "$here/image" && { echo "$edition $base"; sha256sum -- *; } | sha256sum | cut -d' ' -f1)
is_current() { [[ -s $output/$name.tar && -s $output/$name.id && $(cat "$output/$name.inputs" 2>/dev/null) == "$inputs" ]]; }
if $check; then
    if is_current; then echo "kept $(<"$output/$name.id")"; else echo "would-build sha256:not-built-yet"; fi
    exit 0
fi

docker version >/dev/null || {
    echo "build_image.sh: no Docker engine answers on this control node; start one, or set DOCKER_HOST" >&2
    exit 3
}

mkdir -p "$output"
# Two callers at once (a test beside a play) must not write one file.
exec 9>"$output/.$name.lock"
flock 9

# The id of a saved image is the digest of its configuration, whatever store the engine that built it keeps images in.
saved_id() {
    tar -xOf "$1" manifest.json | grep -oE '"Config": ?"[^"]*' | grep -oE '[0-9a-f]{64}' | sed 's/^/sha256:/'
}

if is_current; then
    id=$(<"$output/$name.id")
    # Another checkout may have the tag.
    docker image inspect "$id" >/dev/null 2>&1 || docker load --quiet --input "$output/$name.tar" >&2
    echo "kept $id"
    exit 0
fi

docker build --network host --build-arg EDITION="$edition" --build-arg BASE_IMAGE="$base" --tag "$tag" "$here/image" >&2
rm -f "$output/$name.inputs"
docker save --output "$output/$name.tar.new" "$tag"
saved_id "$output/$name.tar.new" >"$output/$name.id"
mv "$output/$name.tar.new" "$output/$name.tar"
chmod 0644 "$output/$name".*
echo "$inputs" >"$output/$name.inputs" # last: it vouches for the others
echo "built $(<"$output/$name.id")"
