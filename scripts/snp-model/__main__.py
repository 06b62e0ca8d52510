"""Runs stage0's ROM in the model of an SEV-SNP machine. See docs/measured-boot.md.

usage: snp-model --unicorn FOLDER --rom FILE --kernel FILE --initrd FILE [--only WORD]...
"""

import argparse
import sys
import time


def main():
    parser = argparse.ArgumentParser(prog="snp-model")
    for name in ("unicorn", "rom", "kernel", "initrd"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--only", action="append", default=[], help="run cases whose names have this word")
    chosen = parser.parse_args()
    # The emulator lies in a folder of its own; the modules below need it.
    sys.path.insert(0, chosen.unicorn)
    import cases

    started = time.monotonic()
    failed = cases.run(chosen)
    print(f"snp-model: {time.monotonic() - started:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
