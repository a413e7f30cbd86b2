#!/bin/bash
# Builds the sidecar's image on the control node, and keeps it as a file that hosts can load.
#
#   build_image.sh [--check] [OUTPUT_FOLDER]   OUTPUT_FOLDER: default build/images
#
# Leaves OUTPUT_FOLDER/cryptopip-wale.tar, .id (the image's id) and .inputs (the hash of what it was made from), and the local
# tag cryptopip-wale:latest. Where the inputs are unchanged nothing is built; remove the .tar to take in Debian's updates.
# Prints one line: "built ID", "kept ID", or, with --check, which changes nothing, "would-build ID".
# BASE_IMAGE in the environment replaces debian:bookworm-slim, PYTHON the interpreter whose pip fetches WAL-E.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
check=false
if [[ ${1:-} == --check ]]; then
    check=true
    shift
fi
output=${1:-$here/../../../build/images}
base=${BASE_IMAGE:-debian:bookworm-slim}
python=${PYTHON:-python3}
name=cryptopip-wale
tag=$name:latest

inputs=$(cd "$here/image" && { echo "$base"; find . -type f ! -path '*/__pycache__/*' -print0 | sort -z | xargs -0 sha256sum --; } | sha256sum | cut -d' ' -f1)
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

if is_current; then
    id=$(<"$output/$name.id")
    # Another checkout may have the tag.
    docker image inspect "$id" >/dev/null 2>&1 || docker load --quiet --input "$output/$name.tar" >&2
    echo "kept $id"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Pulled where a registry answers, else made from the Debian mirror that apt here uses.
if [[ -z ${BASE_IMAGE:-} ]] && ! docker image inspect "$base" >/dev/null 2>&1 && ! timeout 300 docker pull "$base" >&2; then
    command -v mmdebstrap >/dev/null || {
        echo "build_image.sh: no registry gave $base and there is no mmdebstrap; install mmdebstrap, or set BASE_IMAGE" >&2
        exit 3
    }
    # shellcheck disable=SC2016 # apt's own variable
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 2>/dev/null | sort -u | head -n 1)
    # A file in between, not a pipe: a failed build must not be imported as an image.
    mmdebstrap --variant=apt --format=tar --aptopt='Acquire::Languages "none"' bookworm "$work/base.tar" \
        ${mirror:+"deb $mirror bookworm main"} >&2
    docker import "$work/base.tar" "$base" >&2
    rm -f "$work/base.tar"
fi

# The packages are fetched out here, where pip knows its way out; the build itself takes them from a folder.
cp -r "$here/image" "$work/image"
case $(docker version --format '{{.Server.Arch}}') in
amd64) machine=x86_64 ;;
arm64) machine=aarch64 ;;
*)
    echo "build_image.sh: the engine is neither amd64 nor arm64: gevent has no wheel for it" >&2
    exit 3
    ;;
esac
platforms=()
for glibc in 17 24 26 27 28 31 34 35 36; do
    platforms+=(--platform "manylinux_2_${glibc}_$machine")
done
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
    --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none "${platforms[@]}" --platform "manylinux2014_$machine" \
    --dest "$work/image/wheels" --requirement "$here/image/requirements.txt" >&2

docker build --network host --build-arg BASE_IMAGE="$base" --tag "$tag" "$work/image" >&2
rm -f "$output/$name.inputs"
docker save --output "$output/$name.tar.new" "$tag"
# The id of a saved image is the digest of its configuration, whatever store the engine that built it keeps images in.
tar -xOf "$output/$name.tar.new" manifest.json | grep -oE '"Config": ?"[^"]*' | grep -oE '[0-9a-f]{64}' | sed 's/^/sha256:/' >"$output/$name.id"
mv "$output/$name.tar.new" "$output/$name.tar"
chmod 0644 "$output/$name".*
echo "$inputs" >"$output/$name.inputs" # last: it vouches for the others
echo "built $(<"$output/$name.id")"
