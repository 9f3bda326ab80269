# Runs in a mount namespace of its own, which takes the mounts and the loop device with it when the host ends.
# $1 image, $2 folder to mount it on, $3 name, $4 network namespace
set -eu
# What the host removes becomes a hole again: images stay as small as what is on them.
mount -o loop,discard "$1" "$2"
# nspawn's notes on its machines, which it leaves there when it is killed.
mkdir -p /run/systemd/nspawn
mount -t tmpfs none /run/systemd/nspawn
# nspawn's own filter refuses what a container rarely needs: fanotify, landlock, real-time priorities.
exec systemd-nspawn --quiet --directory="$2" --machine="$3" --hostname="$3" --register=no --keep-unit --console=passive \
    --network-namespace-path="$4" --capability=all \
    --system-call-filter='fanotify_init fanotify_mark name_to_handle_at open_by_handle_at bpf perf_event_open @resources
        landlock_create_ruleset landlock_add_rule landlock_restrict_self' --boot
