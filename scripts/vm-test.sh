#!/usr/bin/env bash
# What our code does under cgroup v2 and nothing else: boots Debian's cloud kernel in QEMU, runs there the tests of `sys` and `runtime`
# that ask something of the kernel, and then a whole cluster (scripts/vm). It emulates every instruction, so it needs no
# virtualization, and takes its time: about ten minutes on two quiet cores.
#
# usage: scripts/vm-test.sh [tests [NAME…] | cluster [NAME…] | shell]     NAME: of a test or a check; all if none is given
#
# CARGO is the cargo to build with.
set -euo pipefail
cd "$(dirname "$0")/.."
part=${1:-all}
case $part in
all | tests | cluster | shell) ;;
*)
	echo "usage: scripts/vm-test.sh [tests [NAME…] | cluster [NAME…] | shell]" >&2
	exit 2
	;;
esac
cargo=${CARGO:-cargo}
built=target/x86_64-unknown-linux-gnu/debug
kubectl=target/tools/bin/kubectl
work=target/vm
mkdir -p "$work"
exec 9>"$work/lock"
flock -n 9 || { echo "another run is under way here" >&2; exit 1; }

sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo
missing=""
command -v qemu-system-x86_64 >/dev/null || missing="$missing qemu-system-x86"
command -v cpio >/dev/null || missing="$missing cpio"
PATH=$PATH:/usr/sbin:/sbin
command -v mkfs.ext4 >/dev/null || missing="$missing e2fsprogs"
[ -x /bin/busybox ] || missing="$missing busybox-static"
if [ -n "$missing" ]; then
	echo "installing$missing"
	$sudo apt-get update -qq
	# shellcheck disable=SC2086
	$sudo apt-get install -y -qq --no-install-recommends $missing
fi

# The kernel and what runs beside us are unpacked, not installed. Each folder is whole or not there.
unpack() {
	local folder=$work/$1
	shift
	[ -d "$folder" ] && return
	rm -rf "$folder.part"
	mkdir -p "$folder.part/debs"
	(cd "$folder.part/debs" && apt-get download -qq "$@")
	for deb in "$folder.part"/debs/*.deb; do
		dpkg-deb -x "$deb" "$folder.part/root"
	done
	rm -r "$folder.part/debs"
	mv "$folder.part" "$folder"
}
unpack kernel "$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')"
unpack peers runc crun apparmor mount \
	libc6 libseccomp2 libsystemd0 libcap2 libyajl2 libgcrypt20 liblzma5 libzstd1 liblz4-1 libgpg-error0 \
	libmount1 libblkid1 libselinux1 libpcre2-8-0 libuuid1 libsmartcols1
kernel=$(ls "$work"/kernel/root/boot/vmlinuz-*)
version=${kernel##*/vmlinuz-}
modules=$work/kernel/root/lib/modules/$version
[ -e "$modules/modules.dep" ] || busybox depmod -b "$work/kernel/root" "$version"

# `--workspace`: the features, and so what is built, are those of all other tests.
binaries=""
if [ "$part" = all ] || [ "$part" = tests ]; then
	of_sys_and_runtime=$(for file in crates/{sys,runtime}/tests/*.rs; do
		name=$(basename "$file" .rs)
		[ "$name" = figures ] || echo "--test $name"
	done)
	# shellcheck disable=SC2086
	binaries=$($cargo test --workspace --exclude e2e --no-run --message-format=json $of_sys_and_runtime |
		python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    path = message.get("executable")
    if path and (message["profile"]["test"] or path.endswith("/gantry-shim")):
        print(message["target"]["name"], path)')
fi
[ "$part" = tests ] || $cargo build -p gantry -p demo
[ -x "$kubectl" ] || make tools

# The disk: programs without what debuggers read, so that little has to be copied.
put() {
	strip -o "$2" "$1" 2>/dev/null || cp "$1" "$2"
}
root=$work/root
rm -rf "$root"
mkdir -p "$root"/{bin,sbin,dev,proc,sys,run,tmp,root,etc,tests,vm,usr/local/bin}
cp -a "$work/peers/root/." "$root/"
cp /bin/busybox "$root/bin/busybox"
chroot "$root" /bin/busybox --install -s /bin 2>/dev/null || for applet in $(/bin/busybox --list); do
	[ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"
done
ln -sf /bin/busybox "$root/sbin/modprobe"
mkdir -p "$root/lib/modules"
cp -a "$modules" "$root/lib/modules/"
if [ -n "$binaries" ]; then
	while read -r name path; do
		place=$root/tests/$name
		# Tests know the shim by its path.
		[ "$name" != gantry-shim ] || { place=$root$path && mkdir -p "${place%/*}"; }
		put "target${path##*/target}" "$place"
	done <<<"$binaries"
fi
if [ "$part" != tests ]; then
	put "$built/gantry" "$root/usr/local/bin/gantry"
	put "$built/gantry-demo" "$root/usr/local/bin/gantry-demo"
fi
cp -L "$kubectl" "$root/usr/local/bin/kubectl"
cp -a scripts/vm/. "$root/vm/"
chmod 1777 "$root/tmp"
printf 'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\ntty:x:5:\n' >"$root/etc/group"
printf '127.0.0.1 localhost gantry-vm\n' >"$root/etc/hosts"

# What finds the disk.
first=$work/first
rm -rf "$first"
mkdir -p "$first"/{bin,modules}
cp /bin/busybox "$first/bin/"
cp scripts/vm/init "$first/init"
chmod +x "$first/init"
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do
	file=$(find "$modules" -name "$module.ko")
	# What is built in has no file.
	[ -z "$file" ] || { cp "$file" "$first/modules/" && echo "$module.ko" >>"$first/modules/order"; }
done
(cd "$first" && find . -print0 | cpio --null --create --format=newc --quiet | gzip -1) >"$work/initramfs.gz"

# KVM is left alone: not every machine's works for an ordinary guest.
boot() {
	local part=$1
	echo "$*" >"$root/vm/part"
	rm -f "$work/disk"
	truncate -s 6G "$work/disk"
	mkfs.ext4 -q -E lazy_itable_init=1,lazy_journal_init=1 -d "$root" "$work/disk"
	local console=(-serial stdio -monitor none)
	[ "$part" = shell ] || exec </dev/null
	timeout 3600 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 4G -display none "${console[@]}" -no-reboot \
		-kernel "$kernel" -initrd "$work/initramfs.gz" -nic none \
		-drive "file=$work/disk,format=raw,if=virtio,cache=unsafe" \
		-append "console=ttyS0 quiet panic=-1 psi=1 apparmor=1 security=apparmor" | tee "$work/$part.log"
	rm -f "$work/disk"
	grep -q "VM PASSED $part" "$work/$part.log" || failed="$failed $part"
}
failed=""
if [ "$part" = all ]; then
	boot tests
	boot cluster
else
	boot "$@"
fi
[ -z "$failed" ] || { echo "VM-TEST FAILED:$failed"; exit 1; }
echo "VM-TEST PASSED"
