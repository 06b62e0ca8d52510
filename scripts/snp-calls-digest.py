#!/usr/bin/env python3
"""MEASUREMENT of an SEV-SNP launch, from the calls a monitor makes of KVM: `snp-calls-digest.py < CALLS`, nothing of Coffer's.

CALLS: one JSON object a line, in the order of the calls: {"features": n} of KVM_SEV_INIT2; {"processor": {...}}, what
KVM_SET_SREGS and KVM_SET_REGS were told, and where a monitor sets them debug registers, PAT, XCR0 and FPU;
{"update": {"gpa", "type", "pages": [hex, ...]}} of KVM_SEV_SNP_LAUNCH_UPDATE; {"finish": 1}; {"call": ...} is none of these.
What KVM adds to a processor's state before it is measured is written down here once more.
Source: Linux arch/x86/kvm/svm/sev.c, sev_es_sync_vmsa and snp_launch_update_vmsa; svm.c, svm_set_cr0
(KVM_X86_QUIRK_CD_NW_CLEARED); SNP ABI, SNP_LAUNCH_UPDATE.
"""
import hashlib, json, struct, sys

NORMAL, VMSA, ZERO, SECRETS, CPUID = 1, 2, 3, 5, 6
PAGE, VMSA_GPA = 4096, 0xFFFFFFFFF000
SVME, MCE, SNP_ACTIVE, NW_CD = 1 << 12, 1 << 6, 1, 3 << 29
SEGMENTS = {"es": 0x00, "cs": 0x10, "ss": 0x20, "ds": 0x30, "fs": 0x40, "gs": 0x50, "ldt": 0x70, "tr": 0x90}
TABLES = {"gdt": 0x60, "idt": 0x80}
GENERAL = {"rax": 0x1F8, "rcx": 0x308, "rdx": 0x310, "rbx": 0x318, "rsp": 0x1D8, "rbp": 0x328, "rsi": 0x330, "rdi": 0x338,
           "r8": 0x340, "r9": 0x348, "r10": 0x350, "r11": 0x358, "r12": 0x360, "r13": 0x368, "r14": 0x370, "r15": 0x378,
           "rip": 0x178, "rflags": 0x170}
AT_RESET = {"dr7": (0x160, 0x400), "dr6": (0x168, 0xFFFF0FF0), "pat": (0x268, 0x7040600070406), "xcr0": (0x3E8, 1),
            "mxcsr": (0x408, 0x1F80), "fcw": (0x410, 0x37F)}
sha384 = lambda data: hashlib.sha384(data).digest()


def vmsa(processor, features):
    page = bytearray(PAGE)
    for name, at in SEGMENTS.items():
        it = processor[name]
        attributes = it["type"] | it["s"] << 4 | it["dpl"] << 5 | it["present"] << 7 | it["avl"] << 8 | it["l"] << 9 \
            | it["db"] << 10 | it["g"] << 11
        struct.pack_into("<HHIQ", page, at, it["selector"], attributes, it["limit"], it["base"])
    for name, at in TABLES.items():
        struct.pack_into("<HHIQ", page, at, 0, 0, processor[name]["limit"], processor[name]["base"])
    words = {at: processor[name] for name, at in GENERAL.items()}
    words |= {at: processor.get(name, word) for name, (at, word) in AT_RESET.items()}
    words |= {0xD0: processor["efer"] | SVME, 0x148: processor["cr4"] | MCE, 0x150: processor["cr3"],
              0x158: processor["cr0"] & ~NW_CD, 0x240: processor["cr2"], 0x3B0: features | SNP_ACTIVE}
    for at, word in words.items():
        struct.pack_into("<Q", page, at, word)
    return bytes(page)


def extended(digest, gpa, kind, page):
    contents = sha384(page) if kind in (NORMAL, VMSA) else bytes(48)
    return sha384(digest + contents + struct.pack("<HBBIQ", 0x70, kind, 0, 0, gpa))


digest, features, processors, finished = bytes(48), 0, [], False
for call in map(json.loads, sys.stdin):
    assert not finished or "call" in call, "a call behind the last"
    if "features" in call:
        features = call["features"]
    elif "processor" in call:
        processors.append(call["processor"])
    elif "update" in call:
        for index, page in enumerate(map(bytes.fromhex, call["update"]["pages"])):
            assert len(page) == PAGE and call["update"]["type"] in (NORMAL, ZERO, SECRETS, CPUID)
            digest = extended(digest, call["update"]["gpa"] + index * PAGE, call["update"]["type"], page)
    elif "finish" in call:
        finished = call["finish"] == 1
        for processor in processors:
            digest = extended(digest, VMSA_GPA, VMSA, vmsa(processor, features))
assert finished, "the launch was not finished"
print(digest.hex())
