#!/usr/bin/env bash
# Boots systemd in namespaces of this machine, installs the Debian package there, and checks its service: it starts in
# its sandbox, reloads certificates, drains, and survives updates and removals.
#
#   tests/systemd.sh PACKAGE ROOTFS PROGRAM
#
# ROOTFS is a Debian file system with systemd, which this script changes:
#
#   debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,init-system-helpers,man-db,bash-completion \
#     bookworm ROOTFS
#
# Needs root, and takes half a minute.
set -euo pipefail
deb=$(realpath "$1") root=$(realpath "$2") program=$(realpath "$3")
work=$(mktemp -d)
boot=
init=
trap '[ -z "$init" ] || kill -9 "$init" 2>/dev/null || true; [ -z "$boot" ] || wait "$boot" 2>/dev/null || true; rm -rf "$work"' EXIT

fail() {
  echo "FAILED: $*"
  [ -z "$init" ] || inside journalctl -u peerpigeon --no-pager -o cat -n 20
  exit 1
}

# Without pivot_root, systemd would run in a chroot, where the kernel allows no user namespaces (PrivateUsers=yes).
cat >"$work/boot" <<'BOOT'
root=$1
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs sysfs sys -o ro || mount --rbind /sys sys
for at in run tmp dev; do mount -t tmpfs tmpfs $at -o mode=755; done
if [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then
  mount -t cgroup2 cgroup2 sys/fs/cgroup
else
  mount -t tmpfs tmpfs sys/fs/cgroup -o mode=755
  mkdir sys/fs/cgroup/systemd
  mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
fi
for node in null zero full random urandom tty; do
  touch dev/$node
  mount --bind /dev/$node dev/$node
done
mkdir dev/pts dev/shm
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=666
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ip link set lo up
mkdir -p old
pivot_root . old
umount -l old
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=console --show-status=no
BOOT
printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
: >"$root/etc/machine-id"
unshare --pid --fork --mount --net --uts --ipc --cgroup --propagation private bash -e "$work/boot" "$root" >"$work/console" 2>&1 &
boot=$!

inside() { nsenter -t "$init" -p -m -n -u -i -C -r -w env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TERM=dumb DEBIAN_FRONTEND=noninteractive "$@"; }
until_true() { # description, command
  local what=$1
  shift
  for _ in $(seq 150); do
    "$@" >/dev/null 2>&1 && return
    read -rt 0.2 <> <(:) || true
  done
  fail "not within 30 s: $what"
}
is() { [ "$(inside systemctl show -P "$1" peerpigeon)" = "$2" ] || fail "$1 is not $2, but $(inside systemctl show -P "$1" peerpigeon)"; }
ready() { until_true "$1 is ready" inside peerpigeon health --url http://localhost:8080/readyz; }
apt() { inside dpkg --force-confold "$@" >"$work/dpkg" 2>&1 || { cat "$work/dpkg"; fail "dpkg $*"; }; }
setting() { echo "$1" >>"$root/etc/peerpigeon.env"; }
certificate() { # days: makes an authority, and a certificate of it
  local key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes) to=$root/etc/peerpigeon
  {
    openssl req -x509 "${key[@]}" -days "$1" -subj "/CN=Authority $1" -keyout "$work/ca.key" -out "$to-ca.pem"
    openssl req "${key[@]}" -subj /CN=localhost -keyout "$to-key.pem" -out "$work/csr"
    printf 'basicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:localhost\n' >"$work/extensions"
    openssl x509 -req -in "$work/csr" -CA "$to-ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days "$1" -extfile "$work/extensions" -out "$to-crt.pem"
  } 2>/dev/null
  chmod 644 "$to"-*.pem
}

until_true "systemd begins" pgrep -P "$boot"
init=$(pgrep -P "$boot")
until_true "systemd runs" inside systemctl is-system-running --wait
inside dpkg --purge peerpigeon >/dev/null 2>&1 || true

cp "$deb" "$root/root/peerpigeon.deb"
apt --install /root/peerpigeon.deb
[ "$(inside peerpigeon --version)" = "$("$program" --version)" ] || fail "the installed program has another version"
[ "$(stat -c %a "$root/etc/peerpigeon.env")" = 640 ] || fail "other users may read the settings"
inside systemctl is-enabled peerpigeon >/dev/null || fail "the service is not enabled"
ready "the installed service"
pid=$(inside systemctl show -P MainPID peerpigeon)
inside grep -qP '^CapEff:\t0+$' "/proc/$pid/status" || fail "the service has capabilities"
inside grep -qP '^Seccomp:\t2$' "/proc/$pid/status" || fail "the service has no filter of system calls"
echo "systemd: the service starts in its sandbox"

inside man -l /usr/share/man/man1/peerpigeon-top.1.gz 2>"$work/man" | grep -q 'Watch hubs' || fail "man does not show peerpigeon-top: $(cat "$work/man")"
# shellcheck disable=SC2016
said=$(inside bash -c '. /usr/share/bash-completion/bash_completion; _completion_loader peerpigeon || true
  COMP_WORDS=(peerpigeon top --so) COMP_CWORD=2; _peerpigeon peerpigeon --so top; echo "${COMPREPLY[@]}"')
[ "$said" = --sort ] || fail "bash completes 'peerpigeon top --so' with '$said'"
echo "systemd: the manual pages and completions work"

certificate 5
setting TLS_CERT=/etc/peerpigeon-crt.pem
setting TLS_KEY=/etc/peerpigeon-key.pem
setting DRAIN_SECS=3
inside systemctl restart peerpigeon
peer() { inside peerpigeon peer --hub wss://localhost:8080 --ca /etc/peerpigeon-ca.pem --json "$@"; }
until_true "clients connect with TLS" peer --listen 1ms
pid=$(inside systemctl show -P MainPID peerpigeon)
# The new certificate has another authority, so clients trust only a hub that has reloaded it.
certificate 50
inside systemctl reload peerpigeon
until_true "clients that trust the new certificate connect" peer --listen 1ms
is MainPID "$pid"
echo "systemd: reload reads the new certificate"

peer --listen 20s >"$work/peer" 2>&1 &
peer=$!
until_true "the peer is connected" grep -q connected "$work/peer"
inside systemctl stop peerpigeon
wait $peer || true
grep -q '"type":"go-away"' "$work/peer" || fail "the peer received no go-away: $(cat "$work/peer")"
grep -q '"code":1012' "$work/peer" || fail "the peer was not closed with 1012: $(cat "$work/peer")"
is Result success
echo "systemd: stop drains"

setting PORT=abc
inside systemctl start peerpigeon || true
until_true "the service has failed" inside systemctl is-failed peerpigeon
is ExecMainStatus 64
is NRestarts 0
sed -i '/^PORT=abc$/d; /^TLS_/d' "$root/etc/peerpigeon.env"
echo "systemd: the service is not restarted after an invalid setting"

inside systemctl start peerpigeon
ready "the service"
pid=$(inside systemctl show -P MainPID peerpigeon)
apt --install /root/peerpigeon.deb
ready "the updated service"
[ "$(inside systemctl show -P MainPID peerpigeon)" != "$pid" ] || fail "an update does not restart the service"
grep -q DRAIN_SECS=3 "$root/etc/peerpigeon.env" || fail "an update loses the settings"
inside systemctl disable --quiet --now peerpigeon
apt --install /root/peerpigeon.deb
is ActiveState inactive
[ "$(inside systemctl is-enabled peerpigeon || true)" = disabled ] || fail "an update enables the service"
inside systemctl enable --quiet --now peerpigeon
apt --remove peerpigeon
is ActiveState inactive
[ -e "$root/etc/peerpigeon.env" ] || fail "a removal loses the settings"
apt --install /root/peerpigeon.deb
ready "the service that is installed again"
apt --purge peerpigeon
is ActiveState inactive
for file in etc/peerpigeon.env etc/systemd/system/peerpigeon.service usr/bin/peerpigeon; do
  [ ! -e "$root/$file" ] && [ ! -L "$root/$file" ] || fail "dpkg --purge leaves $file"
done
echo "systemd: updates and removals keep the settings, and a purge removes all files"
