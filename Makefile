# What can be made here: `make help`.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

CARGO ?= cargo
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
# Guests are built in a folder of their own, so that their profiles and the host's don't undo each other.
GUESTS := $(TARGET)/guests
# Where tests look for guests: the variable SHARPFAAS_FIXTURES names another folder.
FIXTURES := $(TARGET)/fixtures
WASM := --release --target wasm32-wasip2
# Every workspace here.
WORKSPACES := . guest-sdk examples host/tests/fixtures host/benches/peers/http-echo host/benches/peers/graphile host/benches/peers/plain-echo
# Where `make demo` listens when it can.
LISTEN ?= 127.0.0.1:8080

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: build examples ## Build all, start a server, push and run two functions, and go on serving
	@examples/demo.sh "$(TARGET)/release/sharpfaas" "$(FIXTURES)/examples" "$(LISTEN)"

.PHONY: toolchain
toolchain:
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust from https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "a C compiler is missing: install one, as with 'apt-get install build-essential'" >&2; exit 1; }
	@sysroot="$$(rustc --print sysroot)"; \
	for target in wasm32-wasip2 wasm32-wasip1 wasm32-unknown-unknown; do \
		[ ! -d "$$sysroot/lib/rustlib/$$target" ] || continue; \
		command -v rustup >/dev/null || { \
			echo "the Rust target $$target is missing, and so is rustup to add it: install https://rustup.rs" >&2; exit 1; }; \
		rustup target add $$target; \
	done

.PHONY: build
build: toolchain ## Build the server and command line
	$(CARGO) build --release --package sharpfaas-host

# The compiler writes the names of libraries with underscores; here they have the names of their sources.
copy = cmp -s "$(1)" "$(2)" || cp "$(1)" "$(2)"

.PHONY: examples
examples: toolchain ## Build the example functions
	cd examples && $(CARGO) build --target-dir "$(GUESTS)" $(WASM)
	cd examples && $(CARGO) build --target-dir "$(GUESTS)" --release --package word-count-native
	@mkdir -p "$(FIXTURES)/examples"; \
	for name in hello echo csv-summary progress; do \
		$(call copy,$(GUESTS)/wasm32-wasip2/release/$${name//-/_}.wasm,$(FIXTURES)/examples/$$name.wasm); \
	done; \
	$(call copy,$(GUESTS)/release/word-count-native,$(FIXTURES)/examples/word-count-native)

.PHONY: fixtures
fixtures: toolchain ## Build the guests that the tests run
	cd host/tests/fixtures && $(CARGO) build --target-dir "$(GUESTS)" $(WASM) --package components --examples --bins
	cd host/tests/fixtures && $(CARGO) build --target-dir "$(GUESTS)" $(WASM) --package commands --bins
	cd host/tests/fixtures && $(CARGO) build --target-dir "$(GUESTS)" --release --target wasm32-wasip1 --package commands --package modules
	cd host/tests/fixtures && $(CARGO) build --target-dir "$(GUESTS)" --release --target wasm32-unknown-unknown --package modules
	cd host/tests/fixtures && $(CARGO) build --target-dir "$(GUESTS)" --release --package programs --bins
	@mkdir -p "$(FIXTURES)"; cd host/tests/fixtures; \
	for source in components/examples/*.rs; do \
		name="$$(basename "$$source" .rs)"; \
		$(call copy,$(GUESTS)/wasm32-wasip2/release/examples/$${name//-/_}.wasm,$(FIXTURES)/$$name.wasm); \
	done; \
	for source in components/src/bin/*.rs; do \
		name="$$(basename "$$source" .rs)"; \
		$(call copy,$(GUESTS)/wasm32-wasip2/release/$$name.wasm,$(FIXTURES)/$$name.wasm); \
	done; \
	for source in commands/src/bin/*.rs; do \
		name="$$(basename "$$source" .rs)"; \
		$(call copy,$(GUESTS)/wasm32-wasip2/release/$$name.wasm,$(FIXTURES)/$$name.wasm); \
		$(call copy,$(GUESTS)/wasm32-wasip1/release/$$name.wasm,$(FIXTURES)/$$name-preview1.wasm); \
	done; \
	$(call copy,$(GUESTS)/wasm32-unknown-unknown/release/module.wasm,$(FIXTURES)/module.wasm); \
	$(call copy,$(GUESTS)/wasm32-wasip1/release/module.wasm,$(FIXTURES)/module-preview1.wasm); \
	for source in programs/src/bin/*.rs; do \
		name="$$(basename "$$source" .rs)"; \
		$(call copy,$(GUESTS)/release/$$name,$(FIXTURES)/$$name); \
	done

.PHONY: test
test: fixtures examples ## Run all tests that need nothing but this machine
	cd guest-sdk && $(CARGO) test --target-dir "$(GUESTS)" --workspace
	cd examples && $(CARGO) test --target-dir "$(GUESTS)" --workspace
	@export SHARPFAAS_FIXTURES="$(FIXTURES)"; set -x; \
	if $(CARGO) nextest --version >/dev/null 2>&1; then \
		$(CARGO) nextest run --workspace; \
	else \
		$(CARGO) test --workspace; \
	fi

HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
HTTP_ECHO := $(GUESTS)/wasm32-wasip2/release/http_echo.wasm
# What guides the compiler: a profile of the server at work. It is made once; remove it where the code is no longer the same.
TRAINING := $(TARGET)/training
PROFILE := $(TRAINING)/server.profdata
LINKED := $(TARGET)/$(HOST)/dist/sharpfaas
DIST := $(TARGET)/ships/sharpfaas
# What lays out code that is linked: in Debian, the package bolt-19 has it.
LLVM_BOLT ?= $(firstword $(shell command -v llvm-bolt) $(lastword $(sort $(wildcard /usr/lib/llvm-*/bin/llvm-bolt))))
MERGE_FDATA = $(firstword $(shell command -v merge-fdata) $(wildcard $(dir $(LLVM_BOLT))merge-fdata))
# SQLite without the books that nobody here asks it for, and without locks that they would take.
SHIPS := LIBSQLITE3_FLAGS="-DSQLITE_DEFAULT_MEMSTATUS=0 -USQLITE_ENABLE_MEMORY_MANAGEMENT -USQLITE_ENABLE_API_ARMOR"

.PHONY: dist
dist: bolt $(PROFILE) ## Build the server and command line as they ship: optimised as a whole, by a profile of their use (needs wrk and llvm-bolt; takes most of an hour)
	$(SHIPS) RUSTFLAGS="-Cprofile-use=$(PROFILE)" \
		$(CARGO) rustc --profile dist --package sharpfaas-host --bin sharpfaas --target $(HOST) -- -Clink-arg=-Wl,--emit-relocs
	@# What a call runs is larger than the caches for it: what is seldom run of it is moved away from the rest. Assembly is
	@# let alone: it says too little of itself.
	rm -rf "$(TRAINING)/layout" && mkdir -p "$(TRAINING)/layout" "$(dir $(DIST))"
	$(LLVM_BOLT) "$(LINKED)" -o "$(TRAINING)/layout/sharpfaas" -instrument -skip-funcs='ring_core_.*' \
		-instrumentation-file="$(TRAINING)/layout/run" -instrumentation-file-append-pid >"$(TRAINING)/layout/log"
	host/benches/train.sh "$(TRAINING)/layout/sharpfaas" "$(FIXTURES)/examples" "$(HTTP_ECHO)"
	$(MERGE_FDATA) -o "$(TRAINING)/layout/profile" "$(TRAINING)"/layout/run.*
	$(LLVM_BOLT) "$(LINKED)" -o "$(DIST)" -data="$(TRAINING)/layout/profile" -skip-funcs='ring_core_.*' \
		-reorder-blocks=ext-tsp -reorder-functions=cdsort -split-functions -split-all-cold -split-eh -icf=1 >>"$(TRAINING)/layout/log"
	@echo "$(DIST)"

.PHONY: bolt
bolt:
	@[ -n "$(LLVM_BOLT)" ] && [ -n "$(MERGE_FDATA)" ] || { \
		echo "llvm-bolt is missing: install it, as with 'apt-get install bolt-19', or name it with LLVM_BOLT=" >&2; exit 1; }

.PHONY: wrk
wrk:
	@command -v wrk >/dev/null || { echo "wrk is missing: install it, as with 'apt-get install wrk'" >&2; exit 1; }

.PHONY: http-echo
http-echo: toolchain
	cd host/benches/peers/http-echo && $(CARGO) build --target-dir "$(GUESTS)" $(WASM)

$(PROFILE): | toolchain examples http-echo
	@$(MAKE) wrk
	rustup component add llvm-tools
	$(SHIPS) RUSTFLAGS="-Cprofile-generate=$(TRAINING)/raw" $(CARGO) build --profile dist --package sharpfaas-host \
		--target $(HOST) --target-dir "$(TRAINING)"
	rm -rf "$(TRAINING)/raw"
	host/benches/train.sh "$(TRAINING)/$(HOST)/dist/sharpfaas" "$(FIXTURES)/examples" "$(HTTP_ECHO)"
	"$$(rustc --print sysroot)/lib/rustlib/$(HOST)/bin/llvm-profdata" merge --output "$@" "$(TRAINING)/raw"

# Measured is what ships; what measures it need not be built with as much care.
measure = SHARPFAAS_BENCH_SERVER="$(DIST)" SHARPFAAS_ECHO="$(FIXTURES)/examples/echo.wasm" \
	SHARPFAAS_FIXTURES="$(FIXTURES)" $(CARGO) bench --profile release --package sharpfaas-host

.PHONY: bench
bench: wrk fixtures examples http-echo dist ## Measure calls beside a plain web handler and peers (needs wrk)
	cd host/benches/peers/plain-echo && $(CARGO) build --target-dir "$(GUESTS)" --profile dist
	cd examples && $(CARGO) build --target-dir "$(GUESTS)" --release --target wasm32-unknown-unknown --package echo
	SHARPFAAS_HTTP_ECHO="$(HTTP_ECHO)" SHARPFAAS_PLAIN_ECHO="$(GUESTS)/dist/plain-echo" \
		SHARPFAAS_ECHO_MODULE="$(GUESTS)/wasm32-unknown-unknown/release/echo.wasm" \
		$(measure) --bench throughput --bench programs --bench lifecycle --bench hot --bench output

.PHONY: bench-jobs
bench-jobs: examples dist ## Measure jobs on SQLite and PostgreSQL beside graphile_worker (needs PostgreSQL, or root to install it)
	cd host/benches/peers/graphile && $(CARGO) build --target-dir "$(GUESTS)" --profile dist
	SHARPFAAS_GRAPHILE="$(GUESTS)/dist/graphile" $(measure) --bench jobs

.PHONY: soak
soak: fixtures examples dist ## Call and push for an hour, a million times, and see whether the server grows
	$(measure) --bench soak

.PHONY: lint
lint: toolchain ## Check form and style of all code
	@for workspace in $(WORKSPACES); do \
		( set -x; cd "$$workspace"; $(CARGO) fmt --all --check ); \
	done
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	@for workspace in $(filter-out .,$(WORKSPACES)); do \
		( set -x; cd "$$workspace"; $(CARGO) clippy --target-dir "$(GUESTS)" --workspace --all-targets -- -D warnings ); \
	done
	cd guest-sdk && RUSTDOCFLAGS="-D warnings" $(CARGO) doc --target-dir "$(GUESTS)" --workspace --no-deps

.PHONY: clean
clean: ## Remove what was built; the data folder stays
	$(CARGO) clean
	rm -rf "$(GUESTS)" "$(FIXTURES)"
