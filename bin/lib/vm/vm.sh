# shellcheck shell=bash
# Machines with a kernel of their own, emulated: the image they start from, and the emulator. Sourced after setup.sh;
# expects $name, and keeps all of a machine in $cache/vm/machine/$name.

vm_folder=$cache/vm/machine/${name:?}

# ensure_vm_image: disk image, kernel and initrd for these inputs; sets vm_image to their folder.
ensure_vm_image() {
    vm_image=$cache/vm/image/$(digest "$root/bin/lib/vm/build_image")
    [[ ! -f $vm_image/built ]] || return 0
    ensure_packages mmdebstrap e2fsprogs openssh-client
    local mirror
    mirror=$(debian_mirror)
    # The keys and the kernel of an interrupted build do not fit the next one.
    as_root rm -rf "$vm_image"
    step "Building the image of the emulated machine: Debian 13 with ZFS (about six minutes, once)"
    logged "$cache/log/vm-image.log" as_root "$root/bin/lib/vm/build_image" "$vm_image" \
        ${mirror:+"$mirror contrib"}
    as_root chown -R "$(id -u):$(id -g)" "$vm_image"
    touch "$vm_image/built"
}

vm_pid() { cat "$vm_folder/pid" 2>/dev/null; }

# vm_runs: whether the process of the pid file is this machine's emulator.
vm_runs() {
    local pid
    pid=$(vm_pid) && grep -qzF "$vm_folder/console.log" "/proc/$pid/cmdline" 2>/dev/null
}

vm_is_off() { ! vm_runs; }

vm_ssh() {
    ssh -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=30 -o UserKnownHostsFile="$vm_folder/known_hosts" \
        -i "$vm_folder/id" -p "$(cat "$vm_folder/port")" root@127.0.0.1 "$@"
}

vm_answers() { vm_runs && vm_ssh systemctl is-active --quiet multi-user.target; }

# vm_create IMAGE DISKS SIZE: a root disk of its own, and empty disks tank1 and up with their names as serial numbers.
vm_create() {
    local number
    mkdir -p "$vm_folder"
    chmod 700 "$vm_folder"
    cp --sparse=always "$1/root.img" "$vm_folder/root.img"
    install -m 0600 "$1/id" "$vm_folder/id"
    cp "$1/vmlinuz" "$1/initrd.img" "$vm_folder"
    "$venv/bin/python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])' >"$vm_folder/port"
    sed "s/PORT/$(cat "$vm_folder/port")/" "$1/known_hosts" >"$vm_folder/known_hosts"
    for number in $(seq "$2"); do
        truncate -s "$3" "$vm_folder/tank$number.img"
        echo "tank$number"
    done >"$vm_folder/disks"
    mkdir -p "$vm_folder/inventory"
    cat >"$vm_folder/inventory/hosts.yml" <<INVENTORY
# Written by bin/vm up --name $name; overwritten by the next one.
all:
  hosts:
    vm:
      ansible_host: 127.0.0.1
      ansible_port: $(cat "$vm_folder/port")
      ansible_user: root
      ansible_python_interpreter: /usr/bin/python3
      ansible_ssh_private_key_file: $vm_folder/id
      ansible_ssh_common_args: -o UserKnownHostsFile=$vm_folder/known_hosts -o IdentitiesOnly=yes
      ansible_timeout: 60
INVENTORY
}

# vm_start DISK...: power on, with these disks in this order, but for those that are unplugged. Writes that the machine
# was told are done outlive the emulator, as they are in this machine's page cache; what it had not written yet does not.
vm_start() {
    local disk place=0 arguments=()
    for disk in "$@"; do
        place=$((place + 1))
        echo "$place" >"$vm_folder/$disk.place"
        arguments+=(
            -device "pcie-root-port,id=port$place,chassis=$place,slot=$place"
            -blockdev "driver=raw,node-name=$disk,discard=unmap,cache.no-flush=on,file.driver=file,file.filename=$vm_folder/$disk.img,file.discard=unmap"
        )
        [[ -f $vm_folder/$disk.out ]] || arguments+=(-device "virtio-blk-pci,id=$disk,drive=$disk,serial=${disk^^},bus=port$place")
    done
    rm -f "$vm_folder/qmp"
    # The socket's path is relative: an absolute one may be longer than a socket's name can be.
    (
        cd "$vm_folder"
        qemu-system-x86_64 -nodefaults -no-user-config -display none -daemonize -pidfile pid \
            -machine q35 -accel tcg,thread=multi,tb-size=512 -cpu max -smp 2 -m 2048 \
            -kernel vmlinuz -initrd initrd.img \
            -append "root=LABEL=root rw console=ttyS0 quiet mitigations=off nokaslr net.ifnames=0 systemd.show_status=0 tsc=reliable" \
            -drive file=root.img,format=raw,if=none,id=root,cache=unsafe -device virtio-blk-pci,drive=root \
            "${arguments[@]}" \
            -netdev "user,id=net,hostfwd=tcp:127.0.0.1:$(cat port)-:22" -device virtio-net-pci,netdev=net -device virtio-rng-pci \
            -qmp unix:qmp,server=on,wait=off -serial "file:$vm_folder/console.log"
    )
}

# vm_qmp COMMAND [JSON] [--until EVENT]
vm_qmp() { (cd "$vm_folder" && "$venv/bin/python" "$root/bin/lib/vm/qmp.py" qmp "$@"); }
