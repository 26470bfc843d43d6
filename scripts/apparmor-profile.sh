#!/usr/bin/env bash
# Compiles the profile that containers have where the machine has AppArmor; the kernel takes nothing else. Needs Debian's package apparmor.
set -euo pipefail
cd "$(dirname "$0")/../crates/runtime/src/apparmor"
abi=/etc/apparmor.d/abi/3.0
PATH=$PATH:/usr/sbin:/sbin
apparmor_parser --skip-kernel-load --skip-cache --policy-features "$abi" --kernel-features "$abi" \
	--ofile gantry-default.policy gantry-default
