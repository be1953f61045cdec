# Second part of the guest's start: what a booted system has, then the task of this boot. Ends by restarting, which ends QEMU.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
export PYTHONPATH=/opt/roamlab PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
# Mininet imports distutils. Where Python still has it, setuptools need not bring its own, which takes long to import.
for file in /usr/lib/python3*/distutils/version.py; do
  [ -e "$file" ] && export SETUPTOOLS_USE_DISTUTILS=stdlib
done
cd /root || exit
mkdir -p /dev/pts /dev/shm /results /run
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o size=75% tmpfs /results
mount -t cgroup2 cgroup2 /sys/fs/cgroup
chmod 1777 /tmp
ln -s /proc/self/fd /dev/fd
mkdir -p /dev/net
[ -e /dev/net/tun ] || mknod -m 666 /dev/net/tun c 10 200
hostname guest
ip link set lo up
stty -F /dev/ttyS1 raw -echo
python3 -m experiments.guest.inside </dev/null >/dev/console 2>&1
echo "guest: the task ended with exit code $?" >/dev/console
echo b >/proc/sysrq-trigger
