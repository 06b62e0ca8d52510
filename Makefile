# Coffer. `make demo` shows it, `make test` proves it; both install what they need on Debian 12.
TARGET := $(or $(CARGO_TARGET_DIR),target)
PLATFORM := $(TARGET)/release/platform
BINS := -p coffer-runtime -p coffer-vmm -p coffer-kbs -p coffer-verifier-service -p coffer-tests

.PHONY: help setup build platform kernel demo test soak hardware snp-model lab lab-kernel lint bench deb container wheel peers fuzz-smoke mutants clean

help: ## what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: ## Debian packages, guest kernel, tools
	@scripts/setup

build: setup platform ## target/release/coffer, coffer-kbs, coffer-verifier and the guest platform
	@[ -x $(TARGET)/release/coffer ] || echo "coffer build: coffer, coffer-kbs and the demo, 5 to 20 minutes the first time"
	@cargo build --release $(BINS) --bins

platform: setup ## kernel, initrd and manifest of the guest
	@[ -d $(PLATFORM) ] || echo "coffer build: the guest platform (stage0, init, initrd), 5 to 15 minutes the first time"
	@scripts/platform $(PLATFORM)
	@if own=$$(guest/kernel/build --cached); then scripts/platform $(PLATFORM)-own "$$own"; else rm -rf $(PLATFORM)-own; fi

kernel: ## our own smaller guest kernel, built once, and a second platform with it (about 20 processor minutes)
	@guest/kernel/build >/dev/null
	@$(MAKE) --no-print-directory platform

demo: build ## boot an image in a microVM, attest it, release a secret to it, reach it, upgrade it, refuse five attacks
	@$(TARGET)/release/coffer-demo

test: build ## every test, end to end ones included
	@cargo nextest run --release --workspace
	@cargo test --release --doc --workspace

soak: build ## the key broker killed 1,000 times at random moments, and as often while its root key changes; each command at its changes; more servers; about an hour
	@scripts/packages psql:postgresql-client && scripts/story-image all >/dev/null
	@cargo nextest run --release -P soak -p coffer-tests --run-ignored all stories:: killed::
	@COFFER_KILLS=1000 cargo nextest run --release -P soak -p coffer-kbs crash:: rotation::

hardware: build ## for an SEV-SNP host: look at it, launch through each monitor, write one archive to send back
	@$(TARGET)/release/coffer-hardware

snp-model: setup platform ## boot stage0 in a model of an SEV-SNP machine, against honest and hostile hosts (part of test)
	@scripts/snp-model/run $(PLATFORM)

lab: build ## a host of its own in QEMU's translator, whose KVM runs guests in our own monitor; an hour
	@cargo nextest run --release -j 1 -p coffer-tests --run-ignored all lab::

lab-kernel: setup ## that host's kernel once more, our own: built once (about 8 processor minutes), and private memory tried on its KVM
	@guest/kernel/build lab >/dev/null
	@cargo nextest run --release -p coffer-tests --run-ignored all --no-capture lab_kernel::

lint: ## formatting, clippy, licences and sources of dependencies
	@scripts/setup lint
	@cargo fmt --all --check
	@cargo clippy --release --workspace --all-targets -- -D warnings
	@cargo clippy --profile stage0 -p coffer-stage0 --bin stage0 --features firmware -- -D warnings
	@$${XDG_CACHE_HOME:-$$HOME/.cache}/coffer/tools/bin/cargo-deny --log-level error check bans licenses sources

bench: build ## figures, each beside the limit measured in the same run
	@cargo bench -p coffer-verifier
	@$(TARGET)/release/coffer bench verify
	@$(TARGET)/release/coffer bench simulator
	@$(TARGET)/release/coffer bench kbs
	@$(TARGET)/release/coffer bench service
	@$(TARGET)/release/coffer bench seal
	@$(TARGET)/release/coffer-bench-boot
	@$(TARGET)/release/coffer-bench-boxes

deb: build ## target/debian: packages of coffer, coffer-kbs and coffer-verifier, with units, man pages and completions
	@scripts/setup deb
	@scripts/deb $(TARGET)

container: build ## target/images: OCI images of coffer-kbs and coffer-verifier, of nothing but what they need
	@scripts/container $(TARGET)

wheel: ## target/wheels: the Python package, built by maturin and tried in an environment of its own
	@scripts/wheel $(TARGET)/wheels

peers: build ## snpguest judges the simulator's evidence
	@scripts/peers $(TARGET)/release

fuzz-smoke: ## 60 s of each fuzz target; needs a nightly compiler
	@scripts/fuzz-smoke

mutants: ## delete each check of scripts/mutants.list in turn: a test must notice; half an hour
	@scripts/mutants

clean:
	@cargo clean
