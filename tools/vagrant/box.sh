#!/usr/bin/env bash
# Build a Vagrant box for libvirt in which `make setup` has nothing left to do: the guest needs no network.
#   tools/vagrant/box.sh [FILE]      default: build/vagrant/roamlab.box
# Needs root, for the owners of files. Runs in mount and process namespaces of its own: whatever ends it, nothing
# stays mounted and no process is left. The kernel is Debian's cloud kernel.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PATH:/usr/sbin:/sbin" LC_ALL=C.UTF-8
box="$(realpath -m "${1:-build/vagrant/roamlab.box}")"
suite=bookworm
mirror="${ROAMLAB_MIRROR:-http://deb.debian.org/debian}"
disk_mib=10240
needed_mib=6000

die() { echo "roamlab vagrant-box: $*" >&2; exit 1; }

if [ "${ROAMLAB_BOX_INSIDE:-}" != yes ]; then
  [ "$(id -u)" -eq 0 ] || die "building a box needs root: sudo make vagrant-box"
  [ "$(uname -m)" = x86_64 ] || die "the box is built for x86-64 and by running its programs; this machine is $(uname -m)"
  packages=()
  for pair in mmdebstrap:mmdebstrap mke2fs:e2fsprogs sfdisk:fdisk qemu-img:qemu-utils git:git rsync:rsync unshare:util-linux; do
    command -v "${pair%%:*}" >/dev/null || packages+=("${pair##*:}")
  done
  [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || packages+=(debian-archive-keyring)
  [ "${#packages[@]}" -eq 0 ] || die "programs are missing: apt-get install --no-install-recommends ${packages[*]}"
  mkdir -p "$(dirname "$box")"
  free_mib="$(df -Pm "$(dirname "$box")" | awk 'NR == 2 {print $4}')"
  [ "$free_mib" -ge "$needed_mib" ] || die "$(dirname "$box"): $free_mib MiB free, the build takes $needed_mib: make room, or name a file elsewhere"

  work="$(mktemp -d "$(dirname "$box")/work.XXXXXX")"
  trap 'rm -rf --one-file-system "$work"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  # In the background, with `wait`: bash acts on a signal at once. --kill-child ends all of the build with `unshare`.
  ROAMLAB_BOX_INSIDE=yes setpriv --pdeathsig KILL -- unshare --mount --pid --fork --kill-child --mount-proc -- \
    "$0" "$work" </dev/null &
  child=$!
  trap 'kill -KILL "$child" 2>/dev/null || true; wait "$child" 2>/dev/null || true; rm -rf --one-file-system "$work"' EXIT
  status=0
  wait "$child" || status=$?
  [ "$status" -le 1 ] || die "the build ended with status $status"
  [ "$status" -eq 0 ] || exit 1  # it has said why
  mv "$work/roamlab.box" "$box"
  [ -z "${SUDO_UID:-}" ] || chown "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$box" "$(dirname "$box")"
  echo "roamlab vagrant-box: $box ($(du -m "$box" | cut -f1) MiB). To use it:"
  echo "  vagrant box add --force --name roamlab/bookworm64 $box"
  echo "  ROAMLAB_BOX=roamlab/bookworm64 vagrant up"
  exit 0
fi

# ---- inside the namespaces: one argument, the work folder -----------------------------------------------------------
work="$1"
root="$work/root"
say() { echo "roamlab vagrant-box: ${SECONDS} s: $*"; }

logged() {  # a step's output is shown only when it fails
  "$@" >"$work/log" 2>&1 || { tail -n 30 "$work/log" >&2; return 1; }
}

sources() {  # the checkout as Vagrant will copy it
  mkdir -p "$root/vagrant"
  inputs="$(cat requirements.lock pyproject.toml | sha256sum | cut -d' ' -f1)"  # what `make setup` depends on
  git -c safe.directory="$PWD" ls-files -co --exclude-standard -z | rsync -a --from0 --files-from=- --ignore-missing-args ./ "$root/vagrant/"
}

in_root() {
  chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root \
    ${PIP_INDEX_URL:+PIP_INDEX_URL="$PIP_INDEX_URL"} ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} "$@"
}

say "installing Debian $suite (one to two minutes)"
logged mmdebstrap --mode=root --variant=minbase --quiet \
  --include=systemd-sysv,udev,dbus,openssh-server,sudo,iproute2,rsync,ca-certificates,make,git \
  --include=initramfs-tools,zstd,linux-image-cloud-amd64,grub-pc-bin,python3-venv \
  "$suite" "$root" "$mirror" ||
  die "mmdebstrap failed, its last words are above; $mirror must be reachable (another one: ROAMLAB_MIRROR=URL)"

say "the user, the network, the file system table"
in_root useradd -m -s /bin/bash vagrant
echo 'vagrant:vagrant' | in_root chpasswd
echo 'vagrant ALL=(ALL) NOPASSWD:ALL' >"$root/etc/sudoers.d/vagrant"
chmod 440 "$root/etc/sudoers.d/vagrant"
# Vagrant's well-known key; `vagrant up` replaces it by one of its own.
install -d -m 700 "$root/home/vagrant/.ssh"
install -m 600 tools/vagrant/insecure.pub "$root/home/vagrant/.ssh/authorized_keys"
echo 'UseDNS no' >>"$root/etc/ssh/sshd_config"
printf '[Match]\nName=eth*\n\n[Network]\nDHCP=yes\n' >"$root/etc/systemd/network/80-dhcp.network"
logged in_root systemctl enable systemd-networkd
# Reached over eth0 whatever the machine type calls its slots: net.ifnames=0 in grub.cfg below.
echo roamlab >"$root/etc/hostname"
printf '127.0.0.1 localhost roamlab\n::1 localhost\n' >"$root/etc/hosts"
echo '/dev/vda1 / ext4 errors=remount-ro 0 1' >"$root/etc/fstab"

say "make setup, as in every checkout (one to three minutes)"
sources
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
# This machine's certificates, for the build only: its way out may be a proxy with a certificate of its own.
certificates=/etc/ssl/certs/ca-certificates.crt
[ ! -e "$certificates" ] || mount --bind "$certificates" "$root$certificates"
rm -f "$root/etc/resolv.conf"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
logged in_root make -C /vagrant setup || die "make setup failed in the box, its last words are above; Debian's and Python's archives must be reachable"
umount "$root$certificates" 2>/dev/null || true
umount "$root/tmp" "$root/proc" "$root/dev"
in_root chown -R vagrant:vagrant /vagrant /home/vagrant
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb "$root/root/.cache"
: >"$root/etc/machine-id"

say "the disk"
kernel="$(cd "$root/boot" && printf '%s\n' vmlinuz-* | sort -V | tail -n 1)"
mkdir -p "$root/boot/grub"
cat >"$root/boot/grub/grub.cfg" <<GRUB
set timeout=0
linux (hd0,msdos1)/boot/$kernel root=/dev/vda1 ro console=tty0 console=ttyS0 net.ifnames=0 quiet
initrd (hd0,msdos1)/boot/initrd.img-${kernel#vmlinuz-}
boot
GRUB
in_root grub-mkimage -O i386-pc -o /boot/grub/core.img -p '(hd0,msdos1)/boot/grub' biosdisk part_msdos ext2 linux normal configfile echo
# No loop device: the file system is made behind the first MiB, which has the boot loader.
truncate -s "${disk_mib}M" "$work/disk"
echo '2048,,83,*' | logged sfdisk -q "$work/disk"
logged mke2fs -q -F -t ext4 -m 1 -d "$root" -E offset=$((1 << 20)) "$work/disk" "$((disk_mib - 1))M"
dd if="$root/usr/lib/grub/i386-pc/boot.img" of="$work/disk" bs=1 count=440 conv=notrunc status=none
dd if="$root/boot/grub/core.img" of="$work/disk" bs=512 seek=1 conv=notrunc status=none
rm -rf --one-file-system "$root"

say "the box"
mkdir "$work/box"
logged qemu-img convert -f raw -O qcow2 -c -o compression_type=zstd "$work/disk" "$work/box/box.img"
rm "$work/disk"
cat >"$work/box/metadata.json" <<JSON
{"provider": "libvirt", "format": "qcow2", "virtual_size": $((disk_mib / 1024)), "roamlab": "$inputs"}
JSON
echo 'Vagrant.configure("2") { |config| config.vm.provider(:libvirt) { |libvirt| libvirt.disk_bus = "virtio" } }' >"$work/box/Vagrantfile"
tar -cf "$work/roamlab.box" -C "$work/box" ./metadata.json ./Vagrantfile ./box.img
