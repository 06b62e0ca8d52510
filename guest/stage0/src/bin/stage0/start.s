# From the reset vector to Rust. Nothing here reads a value of the host's, but for one word of the CPUID page. What stands in
# braces is the machine model's (sys/start.rs).
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

    # The C-bit (bit 51) stands in every entry if the secure processor filled the CPUID page: a guest without SEV-SNP has
    # zeros there, or a host that lies to a guest it can read anyway. With paging off, an SNP guest reads encrypted memory.
    xorl %ebx, %ebx
    cmpl $0, {cpuid}
    je 1f
    movl $(1 << ({c_bit} - 32)), %ebx
1:
    # Three pages: 4 GiB, identity mapped, the first of them in 2 MiB pages.
    movl ${page_tables}, %edi
    movl $({page_tables_size} / 4), %ecx
    xorl %eax, %eax
    rep stosl
    movl $({page_tables} + 0x1023), {page_tables}
    movl %ebx, {page_tables} + 4
    movl $({page_tables} + 0x2023), {page_tables} + 0x1000
    movl %ebx, {page_tables} + 0x1004
    movl $0x400000E3, {page_tables} + 0x1008
    movl %ebx, {page_tables} + 0x100C
    movl $0x800000E3, {page_tables} + 0x1010
    movl %ebx, {page_tables} + 0x1014
    movl $0xC00000E3, {page_tables} + 0x1018
    movl %ebx, {page_tables} + 0x101C
    movl $({page_tables} + 0x2000), %edi
    movl $0xE3, %eax
    movl $512, %ecx
2:
    movl %eax, (%edi)
    movl %ebx, 4(%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 2b

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
sev_metadata_end:

    .fill {metadata_from_end} - {table_end_from_end} - (guid_table_end - guid_table) - (. - .rom.tables), 1, 0
guid_table:
    .long {metadata_from_end}
    .word {entry_header} + 4
    .quad {sev_metadata_0}, {sev_metadata_1}
    .long {hashes}, {hashes_size}
    .word {entry_header} + 8
    .quad {hash_table_area_0}, {hash_table_area_1}
    .long ap_start16
    .word {entry_header} + 4
    .quad {reset_block_0}, {reset_block_1}
    .word guid_table_end - guid_table
    .quad {footer_0}, {footer_1}
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
