#!/bin/sh
# boot.sh BASE FOLDER LAYER: become the first process of a host. Everything that it mounts is in a mount
# namespace of its own, and goes with it.
set -eu
umask 022
base=$1 folder=$2 layer=$3
cd "$folder/root"
mount -t overlay metal -o "lowerdir=$base,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
cd "$folder/root"

mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for node in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 666 "dev/${node%:*}" c 1 "${node#*:}"
done
mknod -m 666 dev/tty c 5 0
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mkdir dev/pts dev/shm run/sshd run/lock run/old
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777 tmpfs dev/shm
chmod 1777 run/lock
if [ -n "$layer" ]; then
    mkdir -p run/layer/lower run/layer/own "$folder/layer/upper" "$folder/layer/work"
    mount --bind "$layer" run/layer/lower
    mount --bind "$folder/layer" run/layer/own
fi

# On the disk, which has more room than memory has, and emptied at each boot, as Debian does.
rm -rf tmp
mkdir -m 1777 tmp

cat etc/hostname > proc/sys/kernel/hostname
# Namespaces share this one, which is how a reboot is seen.
cat proc/sys/kernel/random/uuid > run/boot_id
chmod 444 run/boot_id
mount --bind run/boot_id proc/sys/kernel/random/boot_id
# What is written to the real one is done by the kernel, which is everybody's.
[ ! -e proc/sysrq-trigger ] || mount --bind dev/null proc/sysrq-trigger

pivot_root . run/old
umount -l /run/old
rmdir /run/old
cd /

# Who started it in the background has it ignore SIGINT, and so would all that it starts.
exec env -i --default-signal "PATH=$PATH" /bin/sh /usr/sbin/metal-init
