# The image of hack/guest: Debian's stable release with its cloud kernel, systemd as PID 1, D-Bus, and what the
# tests run. Packages come by apt, signed; nothing else is fetched.
# `work` is hack/guest's scratch folder.
# shellcheck shell=bash disable=SC2154

guest_packages=linux-image-cloud-amd64,systemd,systemd-sysv,dbus,iproute2,nftables,iptables,busybox-static
guest_packages+=,util-linux,procps,openssl,docker-registry,skopeo,umoci
# critest loads profiles by "sudo apparmor_parser". crun is told of them too.
guest_packages+=,apparmor,sudo,crun
# For WHERRY_GUEST_LSM=selinux; without it the policy is a file that nobody reads.
guest_packages+=,selinux-policy-default

# What makes a boot longer and is used by nothing here; emulated, each program is felt.
guest_without=(getty.target docker-registry.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer
  e2scrub_all.timer systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket
  systemd-udev-trigger.service systemd-networkd.service systemd-timesyncd.service systemd-random-seed.service
  systemd-firstboot.service systemd-hwdb-update.service systemd-journal-catalog-update.service ldconfig.service
  systemd-sysusers.service systemd-update-done.service systemd-machine-id-commit.service systemd-pstore.service
  apparmor.service systemd-journal-flush.service systemd-tpm2-setup.service systemd-tpm2-setup-early.service)

# The mirror that this machine's apt asks.
mirror() {
  # shellcheck disable=SC2016 # apt's own words
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1
}

# build_image FOLDER: kernel, initrd and root.img in it, unless they are there as this file describes them.
build_image() {
  local image="$1" stamp tree="$work/tree"
  stamp=$(sha256sum hack/guest-image.sh)
  [ "$(cat "$image/stamp" 2>/dev/null)" = "$stamp" ] && return 0
  say "Building the guest (once)"
  rm -rf "$image"
  mkdir -p "$image"
  mmdebstrap --quiet --variant=minbase --include="$guest_packages" trixie "$tree" "$(mirror)"
  mv "$tree"/boot/vmlinuz-* "$image/vmlinuz"
  make_initrd >"$image/initrd"
  rm -rf "${tree:?}"/boot "$tree"/usr/share/{doc,man,locale}
  mkdir "$tree/payload"
  echo guest >"$tree/etc/hostname"
  # sudo complains about a name without address, and critest takes any complaint for a failure.
  echo 127.0.0.1 localhost guest >"$tree/etc/hosts"
  # One of its own from the beginning: a first boot does more.
  tr -d - </proc/sys/kernel/random/uuid >"$tree/etc/machine-id"
  guest_unit >"$tree/etc/systemd/system/guest.service"
  guest_script >"$tree/usr/local/sbin/guest"
  chmod 755 "$tree/usr/local/sbin/guest"
  for unit in "${guest_without[@]}"; do ln -sf /dev/null "$tree/etc/systemd/system/$unit"; done
  mke2fs -q -t ext4 -d "$tree" "$image/root.img" 3g >/dev/null
  rm -rf "$tree"
  echo "$stamp" >"$image/stamp"
}

# The kernel has ext4, but not the driver of the disk.
make_initrd() {
  local at="$work/initrd"
  mkdir -p "$at"/{bin,dev,root}
  cp "$tree/usr/bin/busybox" "$at/bin/"
  xz -dc "$tree"/usr/lib/modules/*/kernel/drivers/block/virtio_blk.ko.xz >"$at/virtio_blk.ko"
  cat >"$at/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox insmod /virtio_blk.ko
/bin/busybox mount -t ext4 /dev/vda /root
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
INIT
  chmod 755 "$at/init"
  (cd "$at" && find . | cpio --quiet -o -H newc)
}

guest_unit() {
  cat <<'UNIT'
[Unit]
Description=the command that hack/guest was given
Wants=dbus.socket
After=basic.target dbus.socket
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/guest
LimitNOFILE=65536
TasksMax=infinity
UNIT
}

# What runs in the guest: the command of the second disk. Output and code go out by ports of their own.
guest_script() {
  cat <<'SCRIPT'
#!/bin/bash
port() { grep -lx "$1" /sys/class/virtio-ports/*/name | sed 's#.*/\(vport[^/]*\)/name#/dev/\1#'; }
mount /dev/vdb /payload
export HOME=/root PATH=/payload/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd /root
( . /payload/command ) </dev/null >"$(port out)" 2>&1
echo $? >"$(port code)"
systemctl reboot --force --force
SCRIPT
}
