# A box without a machine, on a host whose control groups are of version 2. IMAGE is set in front of it.

# An initramfs cannot be left with pivot_root(2), which such a box needs: the host gets a root as hosts have one.
if [ "${1:-}" != moved ]; then
    coffer run --rm --isolation process --network none "$IMAGE" true >/tmp/said 2>&1 && exit 1
    cat /tmp/said
    grep -q 'runs in its initramfs' /tmp/said
    mkdir /host
    mount -t tmpfs host /host
    for name in bin etc lib lib64 opt root usr; do [ ! -e "/$name" ] || cp -a "/$name" /host; done
    cp /story /host
    cd /host
    mkdir -p proc sys dev tmp run var/tmp
    for name in proc sys dev tmp run; do mount -o move "/$name" "$name"; done
    mount -o move . /
    exec chroot . sh /story moved
fi
set -e
cd /root
mount -t cgroup2 groups /sys/fs/cgroup

echo "bounds: a box has its own, and they go with it"
coffer run -d --name box --isolation process --network none -m 192m --cpus 2 "$IMAGE" sleep 600
cat /sys/fs/cgroup/coffer/*/memory.max /sys/fs/cgroup/coffer/*/cpu.max
cat /sys/fs/cgroup/coffer/*/cgroup.procs | wc -l
coffer exec box cat /proc/self/cgroup
coffer inspect box | grep -E 'Memory|NanoCpus'
coffer rm -f box
[ "$(ls -d /sys/fs/cgroup/coffer/*/ 2>/dev/null | wc -l)" = 0 ]

# tail keeps all that it may yet have to print.
hold='head -c 260000000 /dev/zero | tail -c 250000000 | wc -c'
echo "bounds: what wants more than it may have ends, and what may have it does not"
coffer run --rm --isolation process --network none -m 192m "$IMAGE" sh -c "$hold" || true
echo "bounds: above is bounded, below is not"
coffer run --rm --isolation process --network none "$IMAGE" sh -c "$hold"
[ "$(ls -d /sys/fs/cgroup/coffer/*/ 2>/dev/null | wc -l)" = 0 ]
