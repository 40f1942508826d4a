# A systemd as the first process of a container: hierarchies of control groups, namespaces and devices of its own.
# Run as: sh -c SCRIPT NAME ROOT NAME NETWORK
# NETWORK is the file of a network namespace, or empty for a new one. A host that reboots begins again here.
set -eu
root=$1 name=$2 network=$3
# From a control group of its own, which becomes the root of the container's.
for hierarchy in unified systemd memory pids cpu cpuacct devices; do
    [ -d "/sys/fs/cgroup/$hierarchy" ] || continue
    mkdir -p "/sys/fs/cgroup/$hierarchy/$name"
    echo $$ > "/sys/fs/cgroup/$hierarchy/$name/cgroup.procs"
done
boot() {
    setpriv --pdeathsig KILL "$@" unshare --pid --mount --uts --ipc --cgroup --fork --kill-child --propagation private sh -ec '
root=$0
mount --rbind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
# Each boot has its own id, as on a machine.
cat /proc/sys/kernel/random/uuid > run/boot-id
mount --bind run/boot-id proc/sys/kernel/random/boot_id
groups=$root/sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs "$groups"
mkdir "$groups/unified" "$groups/systemd"
mount -t cgroup2 cgroup2 "$groups/unified"
mount -t cgroup -o none,name=systemd,xattr cgroup "$groups/systemd" || mount -t cgroup -o none,name=systemd cgroup "$groups/systemd"
for controller in memory pids cpu cpuacct devices; do
    mkdir "$groups/$controller"
    mount -t cgroup -o "$controller" cgroup "$groups/$controller"
done
mount -t tmpfs -o mode=755 tmpfs dev
# Nodes of its own, not mounts of the machine: whoever changes the owner or mode of one in there changes only that.
node() {
    mknod -m 666 "dev/$1" c "$2" "$3"
}
node null 1 3
node zero 1 5
node full 1 7
node random 1 8
node urandom 1 9
node tty 5 0
node console 1 3
if [ -e /dev/kvm ]; then node kvm 10 232; fi
if [ -e /dev/net/tun ]; then
    mkdir dev/net
    node net/tun 10 200
fi
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mkdir -p mnt
pivot_root . mnt
umount -l /mnt
# What an initial file system would do.
if [ -x /boot/stage-2 ]; then /boot/stage-2; fi
exec env -i container=unshare PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system \
    systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=0
' "$root"
}
while :; do
    code=0
    if [ -n "$network" ]; then boot nsenter "--net=$network"; else boot unshare --net; fi || code=$?
    # How unshare tells of a first process that rebooted: by SIGHUP (reboot(2)).
    [ "$code" = 129 ] || exit "$code"
    # The next systemd finds no groups of this one.
    find /sys/fs/cgroup/*/"$name" -mindepth 1 -depth -type d -exec rmdir {} \; 2>&1 || :
done
