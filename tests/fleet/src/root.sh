#!/bin/sh
# Makes a Debian root in the folder $1, for hosts of the kind $2 (plain | collector | managed), lets the SSH key $3 in,
# and keeps downloaded packages in $4. Another kind than plain begins as the plain one, whose image is $5.
# This text is part of the cache's key: another text is another root.
set -eu
root=$1 kind=$2 key=$3 debs=$4 plain=${5-}

if [ "$kind" = plain ]; then
    debootstrap --variant=minbase --cache-dir="$debs" \
        --include=systemd,systemd-sysv,dbus,libpam-systemd,openssh-server,sudo,cron,procps,iproute2,ca-certificates,adduser,vim-tiny,nftables,at \
        bookworm "$root"
else
    mkdir "$root" "$root.plain"
    # Not to be written: hosts begin with it.
    mount -o loop,ro,noload "$plain" "$root.plain"
    cp -a "$root.plain/." "$root/"
    umount "$root.plain"
    rmdir "$root.plain"
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    echo 'deb http://deb.debian.org/debian bookworm main' > "$root/etc/apt/sources.list"
fi

# Nothing starts while packages are installed in a root that is not booted.
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
add() {
    mount -t proc proc "$root/proc"
    chroot "$root" apt-get -q -o APT::Sandbox::User=root update
    chroot "$root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C \
        apt-get -q -y --no-install-recommends -o APT::Sandbox::User=root install "$@"
    umount "$root/proc"
}
case "$kind" in
collector)
    add postgresql
    # Written again and again rather than on and on: each block that a host has ever written is one of the machine's disk.
    for folder in "$root"/etc/postgresql/*/main/conf.d; do
        printf 'min_wal_size = 32MB\nmax_wal_size = 128MB\n' > "$folder/fleet.conf"
    done
    ;;
managed)
    add python3 python3-apt cloud-init puppet-agent systemd-container unattended-upgrades
    # What manages a host does so when a test says.
    ln -sf /dev/null "$root/etc/systemd/system/puppet.service"
    # The network is there before the host is, and there are no locales.
    printf 'network: {config: disabled}\nlocale: false\n' > "$root/etc/cloud/cloud.cfg.d/99_fleet.cfg"
    ;;
esac
rm "$root/usr/sbin/policy-rc.d"

# People with a login of their own who may become root.
for user in alice bob; do
    [ "$kind" = plain ] || continue
    chroot "$root" useradd --create-home --shell /bin/bash "$user"
    echo "$user ALL=(ALL) NOPASSWD: ALL" > "$root/etc/sudoers.d/$user"
    chmod 440 "$root/etc/sudoers.d/$user"
done
for home in root home/alice home/bob; do
    mkdir -p "$root/$home/.ssh"
    chmod 700 "$root/$home/.ssh"
    cp "$key" "$root/$home/.ssh/authorized_keys"
    chown -R --reference="$root/$home" "$root/$home/.ssh"
done

# A journal that outlives a reboot, and is small. No archive but what a test brings; no name but what /etc/hosts says.
mkdir -p "$root/var/log/journal" "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nSystemMaxUse=64M\nSystemMaxFileSize=16M\n' > "$root/etc/systemd/journald.conf.d/fleet.conf"
rm -rf "$root/var/lib/apt/lists" "$root/var/cache/apt/archives" "$root/etc/apt/sources.list"
mkdir -p "$root/var/lib/apt/lists/partial" "$root/var/cache/apt/archives/partial"
: > "$root/etc/resolv.conf"
# Each host makes its own at its first boot.
: > "$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id"
# No work of the distribution's while a test runs.
for timer in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer; do
    ln -sf /dev/null "$root/etc/systemd/system/$timer"
done
