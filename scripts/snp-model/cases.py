"""All cases, on as many processors as there are: each in a process of its own, so that none sees another's machine."""

import os
import sys
import time
import traceback
from collections import Counter
from multiprocessing import get_context

import broken
import honest
import hostile
import injection
import parked
from launch import Boot


def run(chosen):
    """Runs every case; prints figures and whatever is wrong. Gives the number of cases that failed."""
    read = lambda path: open(path, "rb").read()
    rom, platform = read(chosen.rom), Boot(read(chosen.kernel), read(chosen.initrd))
    groups = [("hostile", hostile.cases(rom)), ("parked", parked.cases(rom)), ("injection", injection.cases(rom)),
              ("broken", broken.cases(rom)),
              ("honest", honest.cases(rom, platform))]
    jobs = [(group, name, case) for group, found in groups for name, case in found
            if all(word in f"{group}: {name}" for word in chosen.only)]
    failed, totals = 0, {}
    tried = Counter()
    for group, name, findings, seconds, figures in in_parallel(jobs):
        tried.update(figures)
        totals.setdefault(group, [0, 0])
        totals[group][0] += 1
        if findings:
            failed += 1
            totals[group][1] += 1
            print(f"FAILED {group}: {name}: {'; '.join(findings)}")
        elif chosen.only:
            print(f"ok {group}: {name} ({seconds:.2f} s)")
    for group, (count, wrong) in totals.items():
        print(f"snp-model: {group}: {count} cases, {wrong} failed")
    if tried["pairs"]:
        print("snp-model: events: {pairs} pairs before {places} instructions, in {states} processor states".format(**tried))
    if tried["exits"]:
        print("snp-model: 512 MiB, the platform's own kernel: {exits} exits, of them {page-state} for page states".format(**tried))
    return failed


JOBS = []


def in_parallel(jobs):
    """Largest last in the list, so started first."""
    JOBS[:] = jobs
    with get_context("fork").Pool(os.cpu_count(), maxtasksperchild=1) as pool:
        yield from pool.imap_unordered(one, range(len(jobs) - 1, -1, -1))


def one(index):
    group, name, case = JOBS[index]
    started = time.process_time()
    figures = {}
    try:
        findings = case()
        # Some also say how much they tried or needed.
        findings, figures = findings if isinstance(findings, tuple) else (findings, figures)
    except Exception:
        findings = [traceback.format_exc()]
    sys.stdout.flush()
    return group, name, list(findings), time.process_time() - started, figures
