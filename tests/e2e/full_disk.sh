#!/usr/bin/env bash
# Runs a command next to a dataset on a small disk. Prints "whole" if the dataset is unchanged
# afterwards. Run it with unshare, so that no other process sees the disk.
#
#     full_disk.sh BYTES DISK DATASET COMMAND...
set -euo pipefail

bytes=$1 disk=$2 dataset=$3
shift 3
mount -t tmpfs -o "size=$bytes" none "$disk"
cp -r "$dataset" "$disk/data"
sums=$(cd "$disk/data" && find . -type f -print0 | xargs -0 sha256sum)
status=0
"$@" || status=$?
cd "$disk/data"
if sha256sum --check --quiet <<<"$sums"; then echo whole; fi
exit "$status"
