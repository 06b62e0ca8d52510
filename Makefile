# Coffer. `make demo` shows it, `make test` proves it; both install what they need on Debian 12.
TARGET := $(or $(CARGO_TARGET_DIR),target)
PLATFORM := $(TARGET)/release/platform
BINS := -p coffer-runtime -p coffer-vmm -p coffer-kbs -p coffer-verifier-service -p coffer-tests
# What tests and the demonstration are made of compiles in a fifth of the time, and lies beside what is for use.
QUICK := $(TARGET)/quick
NEXTEST := cargo nextest run --cargo-profile quick --workspace

.PHONY: help setup build platform kernel demo tested test soak hardware snp-model lab lab-kernel lint bench deb container wheel peers fuzz-smoke mutants clean

help: ## what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: ## Debian packages, guest kernel, tools
	@scripts/setup

build: setup platform ## target/release/coffer, coffer-kbs, coffer-verifier and the guest platform
	@[ -x $(TARGET)/release/coffer ] || echo "coffer build: coffer, coffer-kbs and coffer-verifier, 10 to 30 minutes the first time"
	@cargo build --release $(BINS) --bins

# A platform's folder, and a second one with our own kernel where that was built.
define put_platform
@[ -d $(1) ] || echo "coffer build: the guest platform (stage0, init, initrd), 5 to 15 minutes the first time"
@$(2) scripts/platform $(1)
@if own=$$(guest/kernel/build --cached); then $(2) scripts/platform $(1)-own "$$own"; else rm -rf $(1)-own; fi
endef

platform: setup ## kernel, initrd and manifest of the guest
	$(call put_platform,$(PLATFORM))

kernel: ## our own smaller guest kernel, built once, and a second platform with it (about 20 processor minutes)
	@guest/kernel/build >/dev/null
	@$(MAKE) --no-print-directory platform

demo: setup ## boot an image in a microVM, attest it, release a secret to it, reach it, upgrade it, refuse five attacks
	@[ -x $(QUICK)/coffer ] || echo "coffer build: coffer, coffer-kbs and the demo, 3 to 10 minutes the first time"
	@cargo build --profile quick $(BINS) -p coffer-platform --bins
	$(call put_platform,$(QUICK)/platform,COFFER_PLATFORM_TOOL=$(QUICK)/coffer-platform)
	@$(QUICK)/coffer-demo

# One selection of packages for all of it: another one would compile much of it again, with other features.
tested: setup
	@[ -x $(QUICK)/coffer ] || echo "coffer build: everything and its tests, 5 to 15 minutes the first time"
	@cargo build --profile quick --workspace --all-targets
	$(call put_platform,$(QUICK)/platform,COFFER_PLATFORM_TOOL=$(QUICK)/coffer-platform)

# Most tests wait more than they compute: twice as many at once as there are processors.
test: tested ## every test, end to end ones included
	@$(NEXTEST) -j $$((2 * $$(nproc)))
	@cargo test --profile quick --doc --workspace

soak: tested ## the key broker killed 1,000 times at random moments, and as often while its root key changes; each command at its changes; more servers and boots; about an hour
	@scripts/packages psql:postgresql-client && scripts/story-image all >/dev/null
	@$(NEXTEST) -P soak --run-ignored all -E 'package(coffer-tests) and test(/^(stories|killed|measured_boot)::/)'
	@COFFER_KILLS=1000 $(NEXTEST) -P soak -E 'package(coffer-kbs) and test(/^(crash|rotation)::/)'

hardware: build ## for an SEV-SNP host: look at it, launch through each monitor, write one archive to send back
	@$(TARGET)/release/coffer-hardware

snp-model: setup platform ## boot stage0 in a model of an SEV-SNP machine, against honest and hostile hosts (part of test)
	@scripts/snp-model/run $(PLATFORM)

lab: tested ## a host of its own in QEMU's translator, whose KVM runs guests in our own monitor; an hour
	@$(NEXTEST) -j 1 --run-ignored all -E 'package(coffer-tests) and test(/^lab::/)'

lab-kernel: tested ## that host's kernel once more, our own: built once (about 8 processor minutes), and private memory tried on its KVM
	@guest/kernel/build lab >/dev/null
	@$(NEXTEST) --run-ignored all --no-capture -E 'package(coffer-tests) and test(/^lab_kernel::/)'

lint: ## formatting, clippy, licences and sources of dependencies
	@scripts/setup lint
	@cargo fmt --all --check
	@cargo clippy --profile quick --workspace --all-targets -- -D warnings
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
