#!/bin/busybox sh
# First process of the guest: the root file system, then what starts the task. Nothing here waits for the host.
# /image is read straight out of the host's page cache (DAX); our own programs lie over it, what is written goes to memory.
B=/bin/busybox
$B mkdir -p /proc /sys /dev /image /memory /new
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B mount -t devtmpfs dev /dev
for module in $($B cat /modules/order); do
  $B insmod "/modules/$module" || echo "guest: module $module does not load"
done
$B mount -t ext4 -o ro,dax /dev/pmem0 /image || echo "guest: the image cannot be mounted"
$B mount -t tmpfs tmpfs /memory
$B mkdir /memory/upper /memory/work
$B mount -t overlay -o lowerdir=/programs:/image,upperdir=/memory/upper,workdir=/memory/work overlay /new
for folder in proc sys dev; do
  $B mount --move /$folder /new/$folder
done
cd /new || exit
$B mount --move . /
exec $B chroot . /bin/sh /opt/roamlab/experiments/guest/start.sh
