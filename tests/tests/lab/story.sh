# What the host of the laboratory does (tests/tests/lab.rs): boxes in our own monitor on a real KVM, and QEMU beside it.
# The first line that fails ends it. IMAGE is set in front of it.

# What there is to see where it fails.
ended() {
    status=$?
    if [ "$status" != 0 ]; then
        # shellcheck disable=SC2046
        coffer inspect $(coffer ps -aq) || true
        tail -n 40 "$COFFER_HOME"/boxes/*/supervisor.log || true
    fi
    exit "$status"
}
trap ended EXIT

[ "${1:-}" = rooted ] || exec rooted sh /story rooted

now() { cut -d' ' -f1 /proc/uptime; }
step() { echo "lab: [$(now)] $*"; }

# Runs a command and prints its seconds as a figure: figure NAME COMMAND...
figure() {
    name=$1 began=$(now)
    shift
    "$@" >/tmp/said 2>&1 || { status=$?; cat /tmp/said; return "$status"; }
    echo "$name $began $(now)" | awk '{ printf "figure: %s %.2f s\n", $1, $3 - $2 }'
}

# Resident KiB of a process without the guest's memory, which is the mapping as long as that: own PID
own() {
    awk '/^[0-9a-f]+-[0-9a-f]+ /{ rest = 1 } /^Size:/{ rest = $2 < 200000 } /^Rss:/{ if (rest) sum += $2 } END { print sum }' "/proc/$1/smaps"
}

box() { coffer run -d --name "$1" --isolation "$2" -m 256m "$IMAGE" sh -c 'echo "up $(uname -r)"; sleep 900'; }

# One plain box of each monitor, one after the other: to its workload, memory, 32 MiB of its root file system (verified), 8 MiB by vsock.
compare() {
    for kind in "$@"; do
        figure "$kind-start" box side "$kind"
        coffer inspect side | awk -v kind="$kind" '/"at_us"/{ at = $2 } /"agent-ready"/{ printf "figure: %s-agent-ready %.2f s\n", kind, at / 1e6 }'
        case $kind in
            kvm) echo "figure: kvm-memory $(own "$(pidof coffer-vmm)") KiB" ;;
            qemu) echo "figure: qemu-memory $(own "$(pidof qemu-system-x86_64)") KiB" ;;
        esac
        figure "$kind-disk" coffer exec side dd if=/bulk of=/dev/null bs=64k
        figure "$kind-vsock" coffer exec side dd if=/dev/zero bs=64k count=128
        figure "$kind-exec" coffer exec side true
        coffer rm -f side >/dev/null
    done
}

step a workload and its status
status=0
coffer run --rm --isolation kvm "$IMAGE" sh -c 'echo "inside $(uname -r)"; exit 3' || status=$?
[ "$status" = 3 ]

step a kernel that is not that of its platform starts no box
cp -a "$(dirname "$(command -v coffer)")/platform" /tmp/platform
printf x | dd of=/tmp/platform/kernel bs=1 seek=4000000 conv=notrunc 2>/dev/null
coffer run --rm --isolation kvm --platform /tmp/platform "$IMAGE" true >/tmp/said 2>&1 && exit 1
cat /tmp/said
grep -q 'has SHA-256' /tmp/said

compare kvm qemu

step a guest with two processors proves itself, and gets a secret from a broker
coffer sim init --product milan >/dev/null
coffer-kbs init --state kbs >/dev/null
coffer-kbs serve --state kbs --allow-simulated "$COFFER_HOME/sim/ark-milan.der" --tenant default --ready-file kbs/ready >kbs.log 2>&1 &
until [ -e kbs/ready ]; do kill -0 $! || break; sleep 0.2; done
export COFFER_KBS_PROFILE=kbs/admin.toml
printf 'correct horse' | coffer kbs secret put kbs:///demo/app/password --allow-simulated
flags="--isolation kvm --tee-simulate --cpus 2 --kbs 127.0.0.1:4480 --kbs-pin $(coffer-kbs pin --state kbs)
       --secret password=kbs:///demo/app/password --host-may stop,stats,logs"
work='echo "processors $(grep -c ^processor /proc/cpuinfo)"; sha256sum /run/secrets/password; sleep 900'
# shellcheck disable=SC2086
coffer --json measure $flags "$IMAGE" sh -c "$work" | coffer kbs reference add --from - --name app
# shellcheck disable=SC2086
coffer run -d --name app $flags "$IMAGE" sh -c "$work"
coffer attest app --allow-simulated
coffer exec --allow-simulated app echo executed as owner
sleep 2
coffer logs app | tee /tmp/said
grep -q 'processors 2' /tmp/said
grep -q "$(printf 'correct horse' | sha256sum | cut -d' ' -f1)" /tmp/said

step a second box beside it
box two kvm
[ "$(pidof coffer-vmm | wc -w)" = 2 ]
coffer exec two true
coffer exec --allow-simulated app true

step a paused box stands still and goes on
# Busy, so that a processor that runs on is seen.
coffer run -d --name held --isolation kvm -m 256m "$IMAGE" sh -c 'while :; do :; done'
spent() { awk '{ print $14 + $15 }' "/proc/$(pidof coffer-vmm | tr ' ' '\n' | sort -n | tail -1)/stat"; }
# Ticks of processor time it takes in four seconds, which have 400.
takes() {
    before=$(spent)
    sleep 4
    ticks=$(($(spent) - before))
    echo "held: $ticks of 400 ticks $1"
}
coffer pause held
coffer ps | grep -q Paused
coffer exec held true && exit 1
takes "while paused"
[ "$ticks" -lt 40 ]
coffer exec two true
coffer unpause held
takes afterwards
[ "$ticks" -gt 100 ]
coffer exec held true
coffer pause held
coffer stop -t 20 held
coffer rm held

step the disk behind the boxes is full
mkdir /tmp/small
mount -t tmpfs -o size=192m small /tmp/small
full="--home /tmp/small/home"
cp -a "$COFFER_HOME" /tmp/small/home
# shellcheck disable=SC2086
coffer $full run -d --name filled --isolation kvm -m 192m "$IMAGE" sleep 900
dd if=/dev/zero of=/tmp/small/fill bs=64k 2>/dev/null || true
# shellcheck disable=SC2086
coffer $full exec filled echo goes on beside a full disk
# shellcheck disable=SC2086
coffer $full run --rm --isolation kvm "$IMAGE" true >/tmp/said 2>&1 && exit 1
cat /tmp/said
grep -qi 'space\|full' /tmp/said
rm /tmp/small/fill
# shellcheck disable=SC2086
coffer $full exec filled true
# shellcheck disable=SC2086
coffer $full rm -f filled
umount /tmp/small

step the monitor of one is killed, the other goes on
kill -9 "$(pidof coffer-vmm | tr ' ' '\n' | sort -n | tail -1)"
sleep 3
coffer inspect two | grep 'coffer-vmm was killed'
coffer exec two true && exit 1
coffer exec --allow-simulated app true
coffer rm -f two app

step a supervisor is killed: its monitor ends by itself
box alone kvm
kill -9 "$(awk '/^PPid:/{ print $2 }' "/proc/$(pidof coffer-vmm)/status")"
sleep 3
[ -z "$(pidof coffer-vmm)" ]
coffer ps -a
coffer rm -f alone

compare qemu kvm
step all done
