# From the reset vector to Rust. Nothing here reads a value of the host's. What stands in braces is the machine model's
# (sys/start.rs).
#
# The ROM's last page holds the 16- and 32-bit start, the tables a launcher reads, and the reset vector. It copies the
# image to 1 MiB, because code that small reaches its own data with 32-bit addresses only there, and because a ROM cannot
# hold variables.

    .section .rom.reset, "ax"
    .code16
    jmp start16
    # A ROM ends at 4 GiB to the byte.
    .fill 16 - (. - .rom.reset), 1, 0

# Application processors of an SEV-SNP launch are parked in the ROM's last page for the life of the VM: a kernel starts its
# own in their place. They ask to be held, because HLT would be an exception there (AMD 56421, §4.3, AP reset hold), and go
# on asking. An event ends the machine: their stack pointer is 0, and the page below 64 KiB is validated by nobody. The page
# is copied to low memory, where a launch in 64-bit mode puts it, and where the vectors of page 0 lead, a second wall: to
# its first byte, by a segment and an offset that lead here also if so many events run over the vectors that an offset is
# taken for a segment (third byte).
    .section .rom.parking, "ax"
    .code16
parking16:
    cli
    cld
parking16_again:
    movl ${ghcb_msr}, %ecx
    movl ${reset_hold}, %eax
    xorl %edx, %edx
    wrmsr
    rep vmmcall
    jmp parking16_again

    .fill {parking_64} - (. - parking16), 1, 0xF4
    .code64
parking64:
    cli
    movl ${ghcb_msr}, %ecx
    movl ${reset_hold}, %eax
    xorl %edx, %edx
    wrmsr
    rep vmmcall
    jmp parking64

    .section .rom, "ax"
    .code16
start16:
    cli
    cld
    # Until stage0 has handlers, an event ends the machine: it has no table to go through.
    movw $(rom_idtr - {rom}), %bx
    lidtl %cs:(%bx)
    movw $(rom_gdtr - {rom}), %bx
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

    # The C-bit (bit 51) stands in every entry if this is an SEV-SNP guest. EFER.SVME says so: no such guest runs without
    # it, and EFER is a part of the measured processor state. With paging off, an SNP guest reads encrypted memory.
    xorl %ebx, %ebx
    movl $0xC0000080, %ecx          # EFER
    rdmsr
    testl $0x1000, %eax             # SVME
    je 1f
    movl $(1 << ({c_bit} - 32)), %ebx
1:
    # Four pages: coffer_machine::page_tables.
    movl ${page_tables}, %edi
    movl $({page_tables_size} / 4), %ecx
    xorl %eax, %eax
    rep stosl
    movl $({page_tables} + 0x1000 + {table}), {page_tables}
    movl %ebx, {page_tables} + 4
    movl $({page_tables} + 0x2000 + {table}), {page_tables} + 0x1000
    movl %ebx, {page_tables} + 0x1004
    movl $(0x40000000 + {large}), {page_tables} + 0x1008
    movl %ebx, {page_tables} + 0x100C
    movl $(0x80000000 + {large}), {page_tables} + 0x1010
    movl %ebx, {page_tables} + 0x1014
    movl $(0xC0000000 + {large}), {page_tables} + 0x1018
    movl %ebx, {page_tables} + 0x101C
    movl $({page_tables} + 0x2000), %edi
    movl ${large}, %eax
    movl $512, %ecx
2:
    movl %eax, (%edi)
    movl %ebx, 4(%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 2b
    movl $({page_tables} + 0x3000 + {table}), {page_tables} + 0x2000 + {window} / 0x200000 * 8
    movl $({window} + {small}), %eax
    movl $512, %ecx
3:
    movl %eax, (%edi)
    movl %ebx, 4(%edi)
    addl $0x1000, %eax
    addl $8, %edi
    loop 3b

    # The page of hashes and the parking page, which lie behind each other in the ROM and where they go.
    movl ${rom_tail}, %esi
    movl ${hashes}, %edi
    movl $0x800, %ecx
    rep movsl
    movl ${rom}, %esi
    movl ${run}, %edi
    movl $__image_dwords, %ecx
    rep movsl
    movl $__bss_start, %edi
    movl $__bss_dwords, %ecx
    xorl %eax, %eax
    rep stosl

    movl %cr4, %eax
    orl $0x20, %eax                 # PAE
    movl %eax, %cr4
    movl ${page_tables}, %eax
    movl %eax, %cr3
    movl $0xC0000080, %ecx          # EFER
    rdmsr
    orl $0x100, %eax                # LME
    wrmsr
    movl %cr0, %eax
    orl $0x80000000, %eax           # PG
    movl %eax, %cr0
    ljmpl $0x10, $entry64

    .balign 8
rom_gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF        # 0x08: 32-bit code
    .quad 0x00AF9B000000FFFF        # 0x10: 64-bit code
    .quad 0x00CF93000000FFFF        # 0x18: data
rom_gdtr:
    .word 31
    .long rom_gdt
rom_idtr:
    .word 0
    .long 0

# What a launcher reads: SEV metadata, and above it the table of GUIDs (coffer_machine::firmware).
    .section .rom.tables, "a"
sev_metadata:
    .long {metadata_magic}
    .long sev_metadata_end - sev_metadata
    .long {metadata_version}
    .long (sev_metadata_end - sev_sections) / 12
sev_sections:
    .long {gpa_0}, {size_0}, {kind_0}
    .long {gpa_1}, {size_1}, {kind_1}
    .long {gpa_2}, {size_2}, {kind_2}
    .long {gpa_3}, {size_3}, {kind_3}
    .long {gpa_4}, {size_4}, {kind_4}
    .long {gpa_5}, {size_5}, {kind_5}
sev_metadata_end:

    .fill {metadata_from_end} - {table_end_from_end} - (guid_table_end - guid_table) - (. - .rom.tables), 1, 0
guid_table:
    .long {metadata_from_end}
    .word {entry_header} + 4
    .quad {sev_metadata_0}, {sev_metadata_1}
    .long parking16
    .word {entry_header} + 4
    .quad {reset_block_0}, {reset_block_1}
    .word guid_table_end - guid_table
    .quad {footer_0}, {footer_1}
guid_table_end:

# The 64-bit entry, at the start of the image. A VMM that loads the image at 1 MiB enters here, with page tables of the
# same shape at 0x1000, no interrupt table, and under SEV-SNP the C-bit in CR3.
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
    movl $0xC0000080, %ecx          # EFER: SVME, as above
    rdmsr
    shrl $12, %eax
    andl $1, %eax
    movl %eax, %ebx
    rdtsc
    shlq $32, %rdx
    orq %rdx, %rax
    movq %rax, %rdi
    movl %ebx, %esi
    call stage0_main
    ud2

# rdi: entry, rsi: zero page. Without an interrupt table, because the handlers are no longer ours to keep.
    .globl enter_kernel
enter_kernel:
    cli
    cld
    lidt no_idtr(%rip)
    xorl %ebp, %ebp
    xorl %ebx, %ebx
    jmp *%rdi

# No exception is expected, and under SEV-SNP the host can make any of them up, at any instruction: no handler returns, or
# believes what it finds on the stack, in a register or in a flag.
    .globl unexpected_exception
unexpected_exception:
    cli
    cld
    leaq __stack_top(%rip), %rsp
    call stage0_exception
    ud2

    .balign 8
gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF
    .quad 0x00AF9B000000FFFF
    .quad 0x00CF93000000FFFF
gdtr:
    .word 31
    .quad gdt
no_idtr:
    .word 0
    .quad 0
    .text
