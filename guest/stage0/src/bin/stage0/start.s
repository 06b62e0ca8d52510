# From the reset vector to Rust. Nothing here reads a value of the host's, but for one word of the CPUID page.
#
# The ROM's last page holds the 16- and 32-bit start, the tables a launcher reads, and the reset vector. It copies the
# image to 1 MiB, because code that small reaches its own data with 32-bit addresses only there, and because a ROM cannot
# hold variables.

    .section .rom.reset, "ax"
    .code16
    jmp start16
    # A ROM ends at 4 GiB to the byte.
    .fill 16 - (. - .rom.reset), 1, 0

    .section .rom, "ax"
    .code16
start16:
    cli
    cld
    movw $(rom_gdtr - 0xFFFF0000), %bx
    lgdtl %cs:(%bx)
    movl %cr0, %eax
    andl $0x9FFFFFFF, %eax          # caches on
    orl $1, %eax                    # protected mode
    movl %eax, %cr0
    ljmpl $0x08, $start32

    .code32
start32:
    movw $0x18, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss

    # The C-bit (bit 51) stands in every entry if the secure processor filled the CPUID page: a guest without SEV-SNP has
    # zeros there, or a host that lies to a guest it can read anyway. With paging off, an SNP guest reads encrypted memory.
    xorl %ebx, %ebx
    cmpl $0, 0xE9000
    je 1f
    movl $0x00080000, %ebx
1:
    # Three pages from 0x1000: 4 GiB, identity mapped, the first of them in 2 MiB pages.
    movl $0x1000, %edi
    movl $0xC00, %ecx
    xorl %eax, %eax
    rep stosl
    movl $0x2023, 0x1000
    movl %ebx, 0x1004
    movl $0x3023, 0x2000
    movl %ebx, 0x2004
    movl $0x400000E3, 0x2008
    movl %ebx, 0x200C
    movl $0x800000E3, 0x2010
    movl %ebx, 0x2014
    movl $0xC00000E3, 0x2018
    movl %ebx, 0x201C
    movl $0x3000, %edi
    movl $0xE3, %eax
    movl $512, %ecx
2:
    movl %eax, (%edi)
    movl %ebx, 4(%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 2b

    movl $0xFFFF0000, %esi
    movl $0x100000, %edi
    movl $__image_dwords, %ecx
    rep movsl
    movl $__bss_start, %edi
    movl $__bss_dwords, %ecx
    xorl %eax, %eax
    rep stosl

    movl %cr4, %eax
    orl $0x20, %eax                 # PAE
    movl %eax, %cr4
    movl $0x1000, %eax
    movl %eax, %cr3
    movl $0xC0000080, %ecx          # EFER
    rdmsr
    orl $0x100, %eax                # LME
    wrmsr
    movl %cr0, %eax
    orl $0x80000000, %eax           # PG
    movl %eax, %cr0
    ljmpl $0x10, $entry64

# Application processors of an SEV-SNP launch are parked here for the life of the VM: a kernel starts its own in their
# place. The ROM is reserved in the kernel's memory map.
    .balign 16
    .code16
ap_start16:
    cli
3:
    hlt
    jmp 3b

    .balign 8
rom_gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF        # 0x08: 32-bit code
    .quad 0x00AF9B000000FFFF        # 0x10: 64-bit code
    .quad 0x00CF93000000FFFF        # 0x18: data
rom_gdtr:
    .word 31
    .long rom_gdt

# What a launcher reads: SEV metadata, and above it the table of GUIDs that ends 32 bytes below 4 GiB.
# Source: OVMF OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm, X64/OvmfSevMetadata.asm.
    .section .rom.tables, "a"
sev_metadata:
    .ascii "ASEV"
    .long sev_metadata_end - sev_metadata
    .long 1
    .long 5
    .long 0x1000, 0x3000, 1         # page tables: zero pages
    .long 0x100000, 0x10000, 1      # stage0 itself: zero pages, filled from the ROM
    .long 0xE8000, 0x1000, 2        # secrets
    .long 0xE9000, 0x1000, 3        # CPUID
    .long 0xEA000, 0x1000, 0x10     # kernel hashes
sev_metadata_end:

    .fill 0x1E0 - (guid_table_end - guid_table) - (. - .rom.tables), 1, 0
guid_table:
    # SEV metadata, dc886566-984a-4798-a75e-5585a7bf67cc: its distance from the end of the ROM.
    .long 0x200
    .word 22
    .byte 0x66, 0x65, 0x88, 0xdc, 0x4a, 0x98, 0x98, 0x47, 0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc
    # Hash table area, 7255371f-3a3b-4b04-927b-1da6efa8d454: address and size.
    .long 0xEA000, 0x1000
    .word 26
    .byte 0x1f, 0x37, 0x55, 0x72, 0x3b, 0x3a, 0x04, 0x4b, 0x92, 0x7b, 0x1d, 0xa6, 0xef, 0xa8, 0xd4, 0x54
    # SEV-ES reset block, 00f771de-1a7e-4fcb-890e-68c77e2fb44e: where application processors start.
    .long ap_start16
    .word 22
    .byte 0xde, 0x71, 0xf7, 0x00, 0x7e, 0x1a, 0xcb, 0x4f, 0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e
    # Footer, 96b582de-1fb2-45f7-baea-a366c55a082d: length of the whole table.
    .word guid_table_end - guid_table
    .byte 0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d
guid_table_end:

# The 64-bit entry, at the start of the image. A VMM that loads the image at 1 MiB enters here, with page tables of the
# same shape at 0x1000.
    .section .entry, "ax"
    .code64
    .globl entry64
entry64:
    cli
    cld
    lgdt gdtr(%rip)
    leaq __stack_top(%rip), %rsp
    movl $0x18, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    pushq $0x10
    leaq 4f(%rip), %rax
    pushq %rax
    lretq
4:
    # SSE, which the compiler uses.
    movq %cr0, %rax
    andq $~4, %rax
    orq $2, %rax
    movq %rax, %cr0
    movq %cr4, %rax
    orq $0x600, %rax
    movq %rax, %cr4
    rdtsc
    shlq $32, %rdx
    orq %rdx, %rax
    movq %rax, %rdi
    call stage0_main
    ud2

# rdi: entry, rsi: zero page.
    .globl enter_kernel
enter_kernel:
    cli
    xorl %ebp, %ebp
    xorl %ebx, %ebx
    jmp *%rdi

# Exceptions nobody expects.
    .globl unexpected_exception
unexpected_exception:
    andq $~15, %rsp
    call stage0_exception
    ud2

# #VC: an instruction the hypervisor must help with. Only CPUID is expected; it is answered from the CPUID page.
    .globl vc_exception
vc_exception:
    pushq %r15
    pushq %r14
    pushq %r13
    pushq %r12
    pushq %r11
    pushq %r10
    pushq %r9
    pushq %r8
    pushq %rdi
    pushq %rsi
    pushq %rbp
    pushq %rdx
    pushq %rcx
    pushq %rbx
    pushq %rax
    fxsave64 fx_area(%rip)
    movq %rsp, %rdi
    subq $8, %rsp
    call stage0_vc
    addq $8, %rsp
    fxrstor64 fx_area(%rip)
    popq %rax
    popq %rbx
    popq %rcx
    popq %rdx
    popq %rbp
    popq %rsi
    popq %rdi
    popq %r8
    popq %r9
    popq %r10
    popq %r11
    popq %r12
    popq %r13
    popq %r14
    popq %r15
    addq $8, %rsp
    iretq

    .balign 8
gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF
    .quad 0x00AF9B000000FFFF
    .quad 0x00CF93000000FFFF
gdtr:
    .word 31
    .quad gdt

    .section .bss.fx, "aw", @nobits
    .balign 64
fx_area:
    .skip 512
    .text
