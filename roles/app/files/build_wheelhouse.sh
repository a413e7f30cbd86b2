#!/bin/bash
# Makes, on the control node, the one file from which hosts install the command `cryptopip` without reaching anything.
#
#   build_wheelhouse.sh [--check] PYTHON ARCHITECTURE [OUTPUT_FOLDER]
#
# PYTHON is the hosts' version (3.11, 3.12, 3.13), ARCHITECTURE theirs as `uname -m` says it; OUTPUT_FOLDER: build/wheelhouse.
# Leaves OUTPUT_FOLDER/RELEASE.tar: cryptopip/releases/RELEASE/{wheels,requirements.txt}, to be unpacked below /opt. RELEASE
# is a hash of the pins and of every source file, so an edit makes a new release and no edit makes none. The wheels of the
# pinned packages are fetched again only when a pin changes. Prints one line: "built RELEASE", "kept RELEASE", or with
# --check, which makes nothing, "would build RELEASE". PIP_PYTHON in the environment replaces python3.
set -euo pipefail

check=""
if [[ ${1:-} == --check ]]; then
    check=yes
    shift
fi
if [[ ! ${1:-} =~ ^3\.1[123]$ || -z ${2:-} ]]; then
    echo "build_wheelhouse.sh: found '$*', expected a Python of 3.11 to 3.13 and an architecture, as in: 3.13 x86_64" >&2
    exit 2
fi
version=$1
architecture=$2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
output=${3:-$root/build/wheelhouse}
python=${PIP_PYTHON:-python3}
cd "$root"

sources() { find collectors -type f \( -name '*.py' -o -name '*.sql' -o -name py.typed \) -print0 | LC_ALL=C sort -z; }
hash_of() { sha256sum | cut -c1-16; }

pins=$({ echo "$version $architecture" && sha256sum requirements/run.txt; } | hash_of)
release=$({ echo "$pins" && sha256sum pyproject.toml requirements/run.in "${BASH_SOURCE[0]}" | cut -d' ' -f1 &&
    sources | xargs -0 sha256sum; } | hash_of)

if [[ -s $output/$release.tar ]]; then
    echo "kept $release"
    exit 0
elif [[ -n $check ]]; then
    echo "would build $release"
    exit 0
fi

mkdir -p "$output"
# Two callers at once (a test beside a play) must not write one file.
exec 9>"$output/.lock"
flock 9
work=$(mktemp -d "$output/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT

wheels=$output/packages-$pins
if [[ ! -d $wheels ]]; then
    platforms=()
    for glibc in 2_28 2_17; do
        platforms+=(--platform "manylinux_${glibc}_$architecture")
    done
    "$python" -m pip download --disable-pip-version-check --quiet --no-deps --require-hashes --only-binary=:all: \
        --python-version "$version" --implementation cp --abi "cp${version/./}" --abi abi3 --abi none \
        "${platforms[@]}" --platform "manylinux2014_$architecture" \
        --requirement requirements/run.txt --dest "$work/packages" >&2
    mv "$work/packages" "$wheels"
fi

# From a copy: setuptools leaves its own build/ behind, and would pack from it what was deleted since.
mkdir -p "$work/source/requirements" "$work/tree/cryptopip/releases/$release/wheels"
cp pyproject.toml README.md LICENSE "$work/source/"
cp requirements/run.in requirements/dev.in "$work/source/requirements/"
sources | xargs -0 cp --parents -t "$work/source"
SOURCE_DATE_EPOCH=315619200 "$python" -m pip wheel --disable-pip-version-check --quiet --no-deps --wheel-dir "$work" "$work/source" >&2

tree=$work/tree/cryptopip/releases/$release
app=$(basename "$work"/cryptopip-*.whl)
cp "$work/$app" "$wheels"/*.whl "$tree/wheels/"
{
    cat requirements/run.txt
    echo "cryptopip==$(cut -d- -f2 <<<"$app") --hash=sha256:$(sha256sum "$work/$app" | cut -d' ' -f1)"
} >"$tree/requirements.txt"
tar --create --file "$work/release.tar" --sort=name --owner=root:0 --group=root:0 --mode='u=rwX,go=rX' --directory "$work/tree" \
    "cryptopip/releases/$release"
mv "$work/release.tar" "$output/$release.tar"
# Every edit makes a release: keep the newest few, for going back and for hosts with another Python.
find "$output" -maxdepth 1 -name '*.tar' -printf '%T@ %p\n' | sort -rn | tail -n +7 | cut -d' ' -f2- | xargs --no-run-if-empty rm --
echo "built $release"
