#!/bin/bash
# boot-systemd.sh TREE TEST FILE…: boot a Debian tree with its own systemd as PID 1, run TEST in it as a unit, return its status.
# The files lie in /t there. The tree is not written to (an overlay in memory); the network is a loopback of its own.
# $TIMEOUT: seconds for all (300). Needs root and systemd-nspawn; the machine itself need not run systemd.
set -euo pipefail
tree=$(realpath "$1") test=$(realpath "$2")
shift 2
limit=${TIMEOUT:-300}
if [ -z "${MIST_IN_NAMESPACE:-}" ]; then
    # A control group of our own in each hierarchy there is, so that nothing is left in the root ones.
    id=mist-test-$$ made=() status=0
    for hierarchy in /sys/fs/cgroup/unified /sys/fs/cgroup/systemd /sys/fs/cgroup; do
        [ -e $hierarchy/cgroup.procs ] && mkdir "$hierarchy/$id" && made+=("$hierarchy/$id")
    done
    (
        for group in "${made[@]}"; do echo $BASHPID > "$group/cgroup.procs"; done
        export MIST_IN_NAMESPACE=1
        exec unshare --mount --cgroup --pid --fork --kill-child --mount-proc --propagation private \
            bash "$0" "$tree" "$test" "$@"
    ) || status=$?
    for group in "${made[@]}"; do
        for _ in 1 2 3 4 5; do
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
            sleep 0.2
        done
    done
    exit $status
fi
mount -t cgroup2 none /sys/fs/cgroup # a private view: our group is the root
mount -t tmpfs tmpfs /run            # nspawn wants no disk there
place=/run/mist-test
mkdir $place
mount -t tmpfs -o size=3g tmpfs $place
mkdir $place/up $place/work $place/root
mount -t overlay overlay -o lowerdir="$tree",upperdir=$place/up,workdir=$place/work $place/root
mkdir -p $place/root/t
cp "$test" $place/root/t/run
chmod +x $place/root/t/run
for file; do cp -r "$file" $place/root/t/; done
units=$place/root/etc/systemd/system
cat > $units/mist-test.service <<UNIT
[Unit]
After=multi-user.target dbus.service
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
ExecStart=/t/run
StandardOutput=file:/t/log
StandardError=inherit
TimeoutStartSec=$limit
Environment=DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8
UNIT
mkdir -p $units/mist-test.target.d
printf '[Unit]\nRequires=multi-user.target mist-test.service\nAfter=multi-user.target\nAllowIsolate=yes\n' > $units/mist-test.target
status=0
timeout -k 5 $((limit + 20)) systemd-nspawn --quiet --register=no --keep-unit --directory=$place/root --boot \
    --private-network --console=pipe --link-journal=no --resolv-conf=off --timezone=off --hostname=mist-test \
    --machine=mist-test --notify-ready=no -- systemd.unit=mist-test.target systemd.show_status=0 </dev/null >$place/console 2>&1 || status=$?
cat $place/root/t/log
[ $status = 0 ] || { echo "--- console"; tail -20 $place/console; }
exit $status
