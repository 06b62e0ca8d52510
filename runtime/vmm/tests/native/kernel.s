# A kernel of a few hundred instructions that drives the devices: integer code at privilege level 0, which even a
# software-virtualised KVM runs. Entered as stage0 is, in 64-bit mode at the address it lies at, with everything mapped.
# SERIAL, EXIT, TRANSPORT, STRIDE, IO_APIC, LOCAL_APIC, TABLES, MODE come from the machine model (native.rs). The byte at MODE says
# what to do. Registers and descriptors: Virtio 1.2.
    .intel_syntax noprefix
    .code64

    .set DISK_QUEUE, 0x40000
    .set VSOCK_QUEUES, 0x60000
    .set HEADER, 0x50000
    .set STATUS, 0x50100
    .set DATA, 0x51000
    .set RECEIVED, 0x70000
    .set NETWORK_QUEUES, 0x78000
    .set RANDOM_QUEUE, 0x7C000
    .set FRAME_LENGTH, 12 + 14 + 15
    .set IDT, 0x30000
    .set COUNT, 0x50800
    .set DIRECTORY, 0x20000
    .set POINTERS, TABLES + 0x1000

start:
    mov esp, 0x90000
    lgdt [rip + gdtr]
    mov al, [MODE]
    cmp al, 1
    je dots
    cmp al, 2
    je fall
    cmp al, 3
    je network

    call map_devices
    call interrupts
    lea rsi, [rip + said_start]
    call say

# A disk: one sector is read, and its bytes are said; a write is refused.
    mov edi, TRANSPORT
    cmp dword ptr [rdi], 0x74726976
    jne fail
    cmp dword ptr [rdi + 8], 2
    jne fail
    mov r8d, DISK_QUEUE
    mov r9d, 1
    call negotiate
    mov dword ptr [HEADER], 0
    mov qword ptr [HEADER + 8], 1
    mov ecx, 3
    call disk_request
    cmp byte ptr [STATUS], 0
    jne fail
    mov byte ptr [DATA + 16], 0
    mov esi, DATA
    call say
    mov dword ptr [HEADER], 1
    mov ecx, 1
    call disk_request
    cmp byte ptr [STATUS], 1
    jne fail
    lea rsi, [rip + said_read_only]
    call say

# The interrupt of what was done arrived through the second I/O APIC.
    mov ecx, 10000000
1:  cmp dword ptr [COUNT], 0
    jne 2f
    pause
    dec ecx
    jnz 1b
    jmp fail
2:  lea rsi, [rip + said_interrupt]
    call say

# The vsock: a stream is opened, a word goes out, a word comes back.
    mov edi, TRANSPORT + STRIDE
    cmp dword ptr [rdi + 8], 19
    jne fail
    mov r8d, VSOCK_QUEUES
    mov r9d, 3
    call negotiate
    mov r10d, VSOCK_QUEUES
    mov eax, RECEIVED
    xor ecx, ecx
3:  mov [r10], rax
    mov dword ptr [r10 + 8], 0x1000
    mov dword ptr [r10 + 12], 2
    mov [VSOCK_QUEUES + 0x404 + rcx * 2], cx
    add r10, 16
    add eax, 0x1000
    inc ecx
    cmp ecx, 4
    jb 3b
    mov word ptr [VSOCK_QUEUES + 0x402], 4
    mov dword ptr [rdi + 0x50], 0

    lea rax, [rip + request]
    mov edx, 44
    mov r11d, 1
    call send
    mov ecx, 1
    call receive
    cmp word ptr [RECEIVED + 30], 2
    jne fail
    lea rax, [rip + ping]
    mov edx, 48
    mov r11d, 2
    call send
    mov ecx, 2
    call receive
    cmp word ptr [RECEIVED + 0x1000 + 30], 5
    jne fail
    mov esi, RECEIVED + 0x1000 + 44
    mov byte ptr [rsi + 5], 0
    call say
    mov al, 0x42
    jmp leave

dots:
    lea rsi, [rip + said_dot]
    call say
    mov ecx, 20000
4:  dec ecx
    jnz 4b
    jmp dots

# A network card behind disk and vsock, and a source of random numbers behind it: a frame goes out, one comes in and its text is
# said, sixteen bytes arrive.
network:
    call map_devices
    mov edi, TRANSPORT + 2 * STRIDE
    cmp dword ptr [rdi + 8], 1
    jne fail
    mov r8d, NETWORK_QUEUES
    mov r9d, 2
    call negotiate
    mov qword ptr [NETWORK_QUEUES], RECEIVED
    mov dword ptr [NETWORK_QUEUES + 8], 0x1000
    mov dword ptr [NETWORK_QUEUES + 12], 2
    mov word ptr [NETWORK_QUEUES + 0x402], 1
    mov dword ptr [rdi + 0x50], 0
    lea rax, [rip + frame]
    mov [NETWORK_QUEUES + 0x1000], rax
    mov dword ptr [NETWORK_QUEUES + 0x1008], FRAME_LENGTH
    mov dword ptr [NETWORK_QUEUES + 0x100C], 0
    mov word ptr [NETWORK_QUEUES + 0x1402], 1
    mov dword ptr [rdi + 0x50], 1
    mov r10d, NETWORK_QUEUES + 0x802
    call used_one
    mov esi, RECEIVED + 12 + 14
    call say
    add edi, STRIDE
    cmp dword ptr [rdi + 8], 4
    jne fail
    mov r8d, RANDOM_QUEUE
    mov r9d, 1
    call negotiate
    mov qword ptr [DATA], 0
    mov qword ptr [DATA + 8], 0
    mov qword ptr [RANDOM_QUEUE], DATA
    mov dword ptr [RANDOM_QUEUE + 8], 16
    mov dword ptr [RANDOM_QUEUE + 12], 2
    mov word ptr [RANDOM_QUEUE + 0x402], 1
    mov dword ptr [rdi + 0x50], 0
    mov r10d, RANDOM_QUEUE + 0x802
    call used_one
    cmp dword ptr [RANDOM_QUEUE + 0x808], 16
    jne fail
    mov rax, [DATA]
    test rax, rax
    jz fail
    cmp rax, [DATA + 8]
    je fail
    lea rsi, [rip + said_random]
    call say
    mov al, 0x42
    jmp leave

# r10: index of a used ring. Waits until it is one.
used_one:
    mov ecx, 100000000
14: cmp word ptr [r10], 1
    je 15f
    pause
    dec ecx
    jnz 14b
    jmp fail
15: ret

fall:
    lidt [rip + nothing]
    ud2

fail:
    lea rsi, [rip + said_fail]
    call say
    mov al, 0x4F
leave:
    mov dx, EXIT
    out dx, al
5:  hlt
    jmp 5b

# rsi: text with a zero behind it.
say:
    mov dx, SERIAL
6:  mov al, [rsi]
    test al, al
    jz 7f
    out dx, al
    inc rsi
    jmp 6b
7:  ret

# rdi: transport, r8: memory for queues of 8 entries, r9d: how many.
negotiate:
    mov dword ptr [rdi + 0x70], 0
    mov dword ptr [rdi + 0x70], 3
    mov dword ptr [rdi + 0x24], 1
    mov dword ptr [rdi + 0x20], 1
    mov dword ptr [rdi + 0x70], 11
    mov eax, [rdi + 0x70]
    test eax, 8
    jz fail
    xor ecx, ecx
8:  mov [rdi + 0x30], ecx
    mov dword ptr [rdi + 0x38], 8
    mov [rdi + 0x80], r8d
    lea eax, [r8 + 0x400]
    mov [rdi + 0x90], eax
    add eax, 0x400
    mov [rdi + 0xA0], eax
    mov dword ptr [rdi + 0x44], 1
    add r8d, 0x1000
    inc ecx
    cmp ecx, r9d
    jb 8b
    mov dword ptr [rdi + 0x70], 15
    mov eax, [rdi + 0x70]
    cmp eax, 15
    jne fail
    ret

# ecx: flags of the data's descriptor. Waits for the answer.
disk_request:
    mov qword ptr [DISK_QUEUE], HEADER
    mov dword ptr [DISK_QUEUE + 8], 16
    mov dword ptr [DISK_QUEUE + 12], 0x10001
    mov qword ptr [DISK_QUEUE + 16], DATA
    mov dword ptr [DISK_QUEUE + 24], 512
    or ecx, 0x20000
    mov [DISK_QUEUE + 28], ecx
    mov qword ptr [DISK_QUEUE + 32], STATUS
    mov dword ptr [DISK_QUEUE + 40], 1
    mov dword ptr [DISK_QUEUE + 44], 2
    mov byte ptr [STATUS], 0xEE
    movzx eax, word ptr [DISK_QUEUE + 0x402]
    inc eax
    mov [DISK_QUEUE + 0x402], ax
    mov dword ptr [rdi + 0x50], 0
    mov ecx, 10000000
9:  cmp [DISK_QUEUE + 0x802], ax
    je 10f
    pause
    dec ecx
    jnz 9b
    jmp fail
10: ret

# rax: packet, edx: its length, r11d: packets sent with it.
send:
    mov [VSOCK_QUEUES + 0x1000], rax
    mov [VSOCK_QUEUES + 0x1008], edx
    mov dword ptr [VSOCK_QUEUES + 0x100C], 0
    mov [VSOCK_QUEUES + 0x1402], r11w
    mov dword ptr [rdi + 0x50], 1
    ret

# ecx: packets received in all, once it returns.
receive:
    mov edx, 10000000
11: cmp [VSOCK_QUEUES + 0x802], cx
    jae 12f
    pause
    dec edx
    jnz 11b
    jmp fail
12: ret

# The fourth gigabyte, where the devices are, in pages of 2 MiB: a software-virtualised KVM knows none of 1 GiB.
map_devices:
    mov eax, 0xC00000E3
    xor ecx, ecx
13: mov [DIRECTORY + rcx * 8], rax
    add eax, 0x200000
    inc ecx
    cmp ecx, 512
    jb 13b
    mov qword ptr [POINTERS + 24], DIRECTORY + 0x23
    mov rax, cr3
    mov cr3, rax
    ret

# One handler, for vector 0x41, which input 1 of the second I/O APIC (the first transport's) raises.
interrupts:
    lea rax, [rip + handler]
    mov edi, IDT + 0x41 * 16
    mov [rdi], ax
    mov word ptr [rdi + 2], 0x10
    mov word ptr [rdi + 4], 0x8E00
    shr rax, 16
    mov [rdi + 6], ax
    shr rax, 16
    mov [rdi + 8], eax
    mov dword ptr [rdi + 12], 0
    lidt [rip + idtr]
    mov eax, LOCAL_APIC
    mov dword ptr [rax + 0xF0], 0x1FF
    mov eax, IO_APIC
    mov dword ptr [rax], 0x13
    mov dword ptr [rax + 16], 0
    mov dword ptr [rax], 0x12
    mov dword ptr [rax + 16], 0x41
    mov dword ptr [COUNT], 0
    mov al, 0xFF                    # a PC's own interrupts: none
    out 0x21, al
    out 0xA1, al
    sti
    ret

handler:
    push rax
    inc dword ptr [COUNT]
    mov eax, LOCAL_APIC
    mov dword ptr [rax + 0xB0], 0
    pop rax
    iretq

    .balign 8
gdt:
    .quad 0, 0x00CF9B000000FFFF, 0x00AF9B000000FFFF, 0x00CF93000000FFFF
gdtr:
    .word 31
    .quad 0x100000 + gdt - start
idtr:
    .word 0x41 * 16 + 15
    .quad IDT
nothing:
    .word 0
    .quad 0

said_start: .asciz "native: start\n"
said_read_only: .asciz "native: read only\n"
said_interrupt: .asciz "native: interrupt\n"
said_fail: .asciz "native: fail\n"
said_dot: .asciz "."
said_random: .asciz "native: random\n"

# What stands in front of a frame, and a frame to everybody.
frame:
    .quad 0
    .long 0
    .byte 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x52, 0x54, 0, 1, 2, 3, 0x88, 0xB5
    .ascii "native: a frame"
    .balign 8

# Packets from CID 3 to CID 2, port 77 to port 4088: an opening, and five bytes.
request:
    .quad 3, 2
    .long 77, 4088, 0
    .word 1, 1
    .long 0, 0x10000, 0
ping:
    .quad 3, 2
    .long 77, 4088, 4
    .word 1, 5
    .long 0, 0x10000, 0
    .ascii "ping"
