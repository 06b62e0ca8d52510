# One box, for which nobody names a monitor: where KVM runs Linux, it is ours. IMAGE is set in front of it.

# In the initramfs first, where a box has no card: passt runs in none.
if [ "${1:-}" != rooted ]; then
    coffer run --rm --network none "$IMAGE" true
    exec rooted sh /story rooted
fi
coffer run -d --name one "$IMAGE" sh -c 'echo "inside $(uname -r)"; sleep 2; exit 3'
coffer inspect one | grep '"Isolation": "kvm"'
while coffer ps -q | grep -q .; do sleep 1; done
coffer logs one
coffer inspect one | grep '"ExitCode": 3'
