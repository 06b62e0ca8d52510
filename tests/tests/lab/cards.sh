# Boxes of our own monitor with network cards, on a real KVM: a way out, ports that lead in, networks, and what no box reaches.
# The first line that fails ends it. IMAGE is set in front of it.

[ "${1:-}" = rooted ] || exec rooted sh /story rooted

# What there is to see where it fails.
ended() {
    status=$?
    [ "$status" = 0 ] || tail -n 40 "$COFFER_HOME"/boxes/*/supervisor.log "$COFFER_HOME"/boxes/*/console.log || true
    exit "$status"
}
trap ended EXIT
set -e

step() { echo "cards: [$(cut -d' ' -f1 /proc/uptime)] $*"; }

# Until a page says this to the host: page URL WORDS
page() {
    for _ in $(seq 60); do
        [ "$(timeout 10 wget -q -O - "$1")" != "$2" ] || return 0
        sleep 1
    done
    return 1
}
# The same inside of a box: reads BOX URL WORDS
reads() {
    for _ in $(seq 20); do
        [ "$(coffer exec "$1" busybox timeout 10 busybox wget -q -O - "$2")" != "$3" ] || return 0
        sleep 1
    done
    return 1
}
# What a box never reads: refused BOX URL
refused() {
    status=0
    coffer exec "$1" busybox timeout 5 busybox wget -q -O - "$2" >/tmp/said || status=$?
    [ "$status" != 0 ] && [ "$status" != 125 ] && [ ! -s /tmp/said ]
}
digest() { sha256sum | cut -d' ' -f1; }
# Resident KiB of a monitor without its guest's memory, which is the mapping as long as that.
own() {
    awk '/^[0-9a-f]+-[0-9a-f]+ /{ rest = 1 } /^Size:/{ rest = $2 < 150000 } /^Rss:/{ if (rest) sum += $2 } END { print sum }' "/proc/$1/smaps"
}

step what the host has, and who is outside
ip addr add 192.0.2.9/32 dev lo
ip addr add 169.254.169.254/32 dev lo
mkdir /tmp/outside /tmp/host
echo the outside >/tmp/outside/index.html
echo the host >/tmp/host/index.html
dd if=/dev/urandom of=/tmp/outside/bulk bs=64k count=64 2>/dev/null
bulk=$(digest </tmp/outside/bulk)
httpd -p 192.0.2.9:80 -h /tmp/outside
httpd -p 169.254.169.254:80 -h /tmp/outside
httpd -p 127.0.0.1:9090 -h /tmp/host
page http://127.0.0.1:9090/ 'the host'
page http://169.254.169.254/ 'the outside'

serve='datagrams serve 5353 & mkdir /www; echo "$0 inside" >/www/index.html; exec busybox httpd -f -h /www'
step a box without a word about networks has a card, and ports that lead in
coffer run -d --name web --isolation kvm -m 160m -p 127.0.0.1:8080:80 -p 8081:80 -p 127.0.0.1:5353:5353/udp "$IMAGE" sh -c "$serve" web
coffer inspect web | grep '"Isolation": "kvm"'
[ -z "$(pidof qemu-system-x86_64)" ]
coffer exec web cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu
page http://127.0.0.1:8080/ 'web inside'
page http://192.0.2.9:8081/ 'web inside'
[ "$(datagrams ask 9999 127.0.0.1:5353)" = 'inside: asked' ]
reads web http://192.0.2.9/ 'the outside'

step what it does not reach
for url in http://10.0.2.2:9090/ http://127.0.0.1:9090/ http://169.254.169.254/; do refused web "$url"; done
for why in 'to a link-local address' 'to the gateway that neither answers nor asks for a name'; do
    grep "network: refused from the guest: a packet $why" "$COFFER_HOME"/boxes/*/supervisor.log
done

step much, in and out
[ "$(coffer exec web sh -c 'busybox wget -q -O /www/bulk http://192.0.2.9/bulk && busybox sha256sum </www/bulk' | cut -d' ' -f1)" = "$bulk" ]
[ "$(wget -q -O - http://127.0.0.1:8080/bulk | digest)" = "$bulk" ]

step a box that takes nothing does not make its monitor grow, and goes on
monitor=$(pidof coffer-vmm)
before=$(own "$monitor")
coffer pause web
# More frames than it has buffers (256).
for _ in $(seq 400); do datagrams ask 0 127.0.0.1:5353 >/dev/null & done
wait
echo "cards: $before KiB of the monitor's own, $(own "$monitor") behind that"
[ "$(own "$monitor")" -lt $((before + 1024)) ]
coffer unpause web
page http://127.0.0.1:8080/ 'web inside'

step boxes of a network know each other, one that proves itself too
coffer network create app
coffer run -d --name db --network app --isolation kvm -m 160m "$IMAGE" sh -c "$serve" db
flags='--isolation kvm --tee-simulate --network app -p 127.0.0.1:8082:80 --host-may stop,stats,logs,exec'
# shellcheck disable=SC2086
coffer --json measure $flags "$IMAGE" sh -c "$serve" proved | grep '"launch": *"long-mode"'
# shellcheck disable=SC2086
coffer run -d --name proved $flags "$IMAGE" sh -c "$serve" proved
coffer attest proved --allow-simulated
page http://127.0.0.1:8082/ 'proved inside'
reads proved http://db/ 'db inside'
reads db http://proved/ 'proved inside'
reads proved http://192.0.2.9/ 'the outside'
for url in http://10.89.0.1:9090/ http://169.254.169.254/; do refused proved "$url"; done

step a box joins, and leaves
refused web http://10.89.0.2/
coffer network connect app web
reads web http://db/ 'db inside'
reads db http://web/ 'web inside'
coffer network disconnect app web
refused web http://10.89.0.2/
reads web http://192.0.2.9/ 'the outside'

step whoever carries the frames is gone, and the cable is out
# shellcheck disable=SC2046
kill -9 $(pidof passt.avx2 || pidof passt)
for _ in $(seq 20); do [ "$(coffer exec web cat /sys/class/net/eth0/carrier)" = 1 ] || break; sleep 1; done
[ "$(coffer exec web cat /sys/class/net/eth0/carrier)" = 0 ]
coffer rm -f web db proved
step all done
