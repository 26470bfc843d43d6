#!/usr/bin/env bash
# Runs the tests of `sys` and `runtime` that ask something of the kernel under another one: Debian's cloud kernel in QEMU, with cgroup v2 and nothing
# else. It emulates every instruction, so it needs no virtualization, and takes some minutes.
#
# usage: scripts/vm-test.sh [TEST…]     the names of tests, all of them if none are given
set -euo pipefail
cd "$(dirname "$0")/.."
target=x86_64-unknown-linux-gnu
work=target/vm
mkdir -p "$work"

sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo
missing=""
command -v qemu-system-x86_64 >/dev/null || missing="$missing qemu-system-x86"
command -v cpio >/dev/null || missing="$missing cpio"
[ -x /bin/busybox ] || missing="$missing busybox-static"
if [ -n "$missing" ]; then
	echo "installing$missing"
	$sudo apt-get update -qq
	# shellcheck disable=SC2086
	$sudo apt-get install -y -qq --no-install-recommends $missing
fi

# The kernel is unpacked, not installed.
if [ ! -d "$work/kernel/boot" ]; then
	package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
	(cd "$work" && apt-get download "$package")
	dpkg-deb -x "$work/$package"_*.deb "$work/kernel"
fi
kernel=$(ls "$work"/kernel/boot/vmlinuz-*)
overlay=$(find "$work/kernel" -name 'overlay.ko*')

binaries=$(cargo test -p sys -p runtime --no-run --message-format=json |
	python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["profile"]["test"] and message["target"]["name"] not in ("figures", "runtime"):
        print(message["target"]["name"], message["executable"])')
shim=$PWD/target/$target/debug/gantry-shim

root=$work/root
rm -rf "$root"
mkdir -p "$root"/{bin,dev,etc,proc,sys,tests,tmp,new} "$root$(dirname "$shim")"
cp /bin/busybox "$root/bin/"
cp "$overlay" "$root/"
# Tests know the shim by its path.
cp "$shim" "$root$shim"
while read -r name path; do
	cp "$path" "$root/tests/$name"
done <<<"$binaries"
printf 'root:x:0:0::/:/bin/sh\n' >"$root/etc/passwd"
printf '%s\n' "$*" >"$root/names"

# The first `init` moves everything to a tmpfs: from the initial root nothing can pivot away.
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t tmpfs -o size=80% tmpfs /new
/bin/busybox cp -a /bin /etc /tests /names /overlay.ko* /work /root /home /new/ 2>/dev/null
for folder in /*; do
	case $folder in /new | /dev | /proc | /sys | /tmp) ;; *) [ -e "/new$folder" ] || /bin/busybox cp -a "$folder" /new/ ;; esac
done
/bin/busybox mkdir -p /new/dev /new/proc /new/sys /new/tmp
exec /bin/busybox switch_root /new /bin/busybox sh /second
INIT
cat >"$root/second" <<'SECOND'
export PATH=/bin RUST_BACKTRACE=1 TMPDIR=/tmp
busybox mount -t proc proc /proc
busybox --install -s /bin
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
insmod /overlay.ko* || echo "no overlay"
ip link set lo up
echo "kernel $(uname -r), controllers: $(cat /sys/fs/cgroup/cgroup.controllers)"
failed=0
for test in /tests/*; do
	echo "== ${test##*/}"
	# shellcheck disable=SC2046
	"$test" --test-threads=2 $(cat /names) || failed=1
done
[ $failed = 0 ] && echo "VM-TEST PASSED" || echo "VM-TEST FAILED"
sync
poweroff -f
SECOND
chmod +x "$root/init"
(cd "$root" && find . -print0 | cpio --null --create --format=newc --quiet | gzip -1) >"$work/initramfs.gz"

# KVM is left alone: not every machine's works for an ordinary guest.
timeout 1500 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3G -nographic -no-reboot \
	-kernel "$kernel" -initrd "$work/initramfs.gz" -nic none \
	-append "console=ttyS0 quiet panic=-1 cgroup_no_v1=all" </dev/null | tee "$work/log"
grep -q "VM-TEST PASSED" "$work/log"
