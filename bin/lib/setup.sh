# shellcheck shell=bash
# From a bare Debian to what the commands need: packages, a Python environment, a Docker engine, two images.
# Every function returns at once when its work is done already. Sourced after common.sh.

# as_root COMMAND...: as root, through sudo where we are not.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        require_root "'$1'"
    fi
}

# require_root WHAT: we are root or can become it through sudo; before output goes to a log.
require_root() {
    ((EUID == 0)) || command -v sudo >/dev/null ||
        die "$1 needs root: we are user $(id -un), and there is no sudo. Run this command as root, or install sudo."
}

# kept_environment: the names of the variables that say how to reach the network, with commas between.
kept_environment() { compgen -e | grep -iE '^(lang|pip_.*|npm_config_.*|(https?|no|all|ftp)_proxy|ssl_cert_file|docker_host)$' | paste -sd,; }

# What says which system this is.
os_release=/etc/os-release

# require_debian: the commands install with apt, and what they install is tried on Debian 12 and 13 only.
require_debian() {
    local id version
    # shellcheck disable=SC1090
    id=$(. "$os_release" && echo "${ID:-unknown}")
    # shellcheck disable=SC1090
    version=$(. "$os_release" && echo "${VERSION_ID:-unknown}")
    [[ $id == debian && ($version == 12 || $version == 13) ]] ||
        die "this is $id $version; expected Debian 12 or 13. Use such a machine, or a virtual one."
}

# require_room GIB MIB: free disk space below the checkout and Docker's folder, and memory available.
require_room() {
    local need_disk=$1 need_memory=$2 path free memory
    for path in "$root" /var/lib/docker; do
        [[ -d $path ]] || path=/var/lib
        free=$(($(df --output=avail -k "$path" | tail -n 1) / 1048576))
        ((free >= need_disk)) || die "$free GiB are free at $path; expected at least $need_disk GiB. Free some space and run again."
    done
    memory=$(($(awk '/^MemAvailable:/ {print $2}' /proc/meminfo) / 1024))
    ((memory >= need_memory)) ||
        die "$memory MiB of memory are available; expected at least $need_memory MiB. Stop something, or use a larger machine."
}

# ensure_packages PACKAGE...: by apt, only those that are missing.
ensure_packages() {
    local package missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    require_root "installing ${missing[*]} with apt"
    step "Installing with apt: ${missing[*]}"
    logged "$cache/log/apt-update.log" as_root apt-get update
    logged "$cache/log/apt-install.log" as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends "${missing[@]}"
}

# find_python: the newest usable interpreter, Debian's own first.
find_python() {
    local python
    for python in /usr/bin/python3 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    die "no Python 3.11, 3.12 or 3.13 was found (tried /usr/bin/python3 and python3.11 to python3.13). Install python3 of Debian 12 or 13."
}

# ensure_venv: .venv from the pinned requirements, and this checkout in it.
ensure_venv() {
    local stamp want
    stamp=$venv/.cryptopip-stamp
    want=$(digest "$root/requirements/dev.txt" "$root/pyproject.toml")
    if [[ -x $venv/bin/python && $(cat "$stamp" 2>/dev/null) == "$want" ]]; then
        return
    fi
    ensure_packages python3 python3-venv
    local python
    python=$(find_python)
    step "Making the Python environment .venv with $("$python" -V) (a few minutes the first time)"
    [[ -x $venv/bin/python ]] || "$python" -m venv "$venv"
    logged "$cache/log/pip.log" "$venv/bin/python" -m pip install --disable-pip-version-check -r "$root/requirements/dev.txt"
    logged "$cache/log/pip-self.log" "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps -e "$root"
    echo "$want" >"$stamp"
}

docker_answers() { docker info; }

# docker_installed: an engine or a client of one; what only removes or shows has nothing to do where there is neither.
docker_installed() { command -v docker >/dev/null || command -v dockerd >/dev/null; }

# ensure_docker: an engine that answers us. Where systemd is not PID 1, dockerd is started here and stays.
ensure_docker() {
    if docker_answers >/dev/null 2>&1; then
        return
    fi
    if ((EUID != 0)); then
        command -v sudo >/dev/null ||
            die "no Docker engine answers, we are user $(id -un), and there is no sudo to install or start one. Run as root, or join the group docker."
        step "Docker needs root here: going on through sudo"
        exec sudo --preserve-env="$(kept_environment)" "$command_path" "${command_arguments[@]}"
    fi
    command -v dockerd >/dev/null || ensure_packages docker.io iptables
    # Debian 13 has the client in a package of its own.
    command -v docker >/dev/null || ensure_packages docker-cli
    step "Starting the Docker engine"
    if [[ -d /run/systemd/system ]]; then
        systemctl enable --now docker.service
    else
        mkdir -p "$cache/log"
        # Without the lock that a command may hold: the engine stays.
        setsid dockerd >"$cache/log/dockerd.log" 2>&1 </dev/null 8>&- &
        note "systemd is not PID 1 here, so dockerd runs on its own; its log is .cache/log/dockerd.log"
    fi
    await 60 "the Docker engine" docker_answers
}

# debian_mirror: where this machine gets Debian from; nothing where apt does not tell.
debian_mirror() {
    local mirror
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 2>/dev/null | sort -u | head -n 1)
    [[ -z $mirror ]] || echo "deb $mirror trixie main"
}

# ensure_base_image: debian:trixie-slim, pulled where a registry answers, else built from the Debian mirror.
ensure_base_image() {
    local image=debian:trixie-slim mirror=()
    if docker image inspect "$image" >/dev/null 2>&1; then
        return
    fi
    step "Getting the base image $image"
    if timeout 300 docker pull "$image" >"$cache/log/pull.log" 2>&1; then
        return
    fi
    ensure_packages mmdebstrap
    # Without one mmdebstrap takes its own default.
    mapfile -t mirror < <(debian_mirror)
    note "no registry answered; building it from ${mirror[*]:-Debian}"
    mkdir -p "$cache/image"
    # A file in between, not a pipe: a failed build must not be imported as an image.
    logged "$cache/log/mmdebstrap.log" as_root mmdebstrap --variant=apt --format=tar \
        --aptopt='Acquire::Languages "none"' trixie "$cache/image/base.tar" "${mirror[@]}"
    logged "$cache/log/import.log" docker import "$cache/image/base.tar" "$image"
    as_root rm -f "$cache/image/base.tar"
}

# build_image TAG FOLDER [ARGUMENT...]: with the host's network, by whichever builder this engine has.
build_image() {
    local tag=$1 folder=$2 buildkit=0
    shift 2
    docker buildx version >/dev/null 2>&1 && buildkit=1
    logged "$cache/log/build-${tag%%:*}.log" env DOCKER_BUILDKIT="$buildkit" docker build --network host -t "$tag" "$@" "$folder"
}

# ensure_host_image: a Debian 13 machine with systemd, ssh and Docker; sets host_image to its tag.
ensure_host_image() {
    ensure_base_image
    host_image=cryptopip-host:$(digest "$root/bin/lib/host/Dockerfile" "$root/bin/lib/host/init")
    if docker image inspect "$host_image" >/dev/null 2>&1; then
        return
    fi
    step "Building the host image $host_image: Debian 13, systemd, ssh, Docker (about two minutes, once)"
    build_image "$host_image" "$root/bin/lib/host"
}
