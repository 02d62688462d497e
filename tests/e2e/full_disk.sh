#!/usr/bin/env bash
# Runs a command beside a dataset on a small disk, and says "whole" if the dataset is, afterwards.
# To be run by unshare: nobody else sees the disk.
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
