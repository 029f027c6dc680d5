# What can be made here: `make help`.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

CARGO ?= cargo
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
# Guests are built in a folder of their own, so that their profiles and the host's don't undo each other.
GUESTS := $(TARGET)/guests
FIXTURES := $(TARGET)/fixtures
WASM := --release --target wasm32-wasip2

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: toolchain
toolchain:
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust from https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "a C compiler is missing: install one, as with 'apt-get install build-essential'" >&2; exit 1; }
	@sysroot="$$(rustc --print sysroot)"; \
	if [ ! -d "$$sysroot/lib/rustlib/wasm32-wasip2" ]; then \
		command -v rustup >/dev/null || { \
			echo "the Rust target wasm32-wasip2 is missing, and so is rustup to add it: install https://rustup.rs" >&2; exit 1; }; \
		rustup target add wasm32-wasip2; \
	fi

.PHONY: build
build: toolchain ## Build the server and command line
	$(CARGO) build --release -p sharpfaas-host

.PHONY: examples
examples: toolchain ## Build the example functions
	cd examples && $(CARGO) build --target-dir "$(GUESTS)" $(WASM)
	cd examples && $(CARGO) build --target-dir "$(GUESTS)" --release -p word-count-native

.PHONY: fixtures
fixtures: toolchain ## Build the guests that the tests run
	cd host/tests/fixtures && $(CARGO) build --target-dir "$(GUESTS)" $(WASM) -p components --examples --bins
	cd host/tests/fixtures && $(CARGO) build --target-dir "$(GUESTS)" --release -p programs --bins
	@# Under the names of their sources: the compiler writes libraries with underscores.
	@mkdir -p "$(FIXTURES)"; cd host/tests/fixtures; \
	for source in components/examples/*.rs components/src/bin/*.rs; do \
		name="$$(basename "$$source" .rs)"; \
		case "$$source" in \
			components/examples/*) built="$(GUESTS)/wasm32-wasip2/release/examples/$${name//-/_}.wasm" ;; \
			*) built="$(GUESTS)/wasm32-wasip2/release/$$name.wasm" ;; \
		esac; \
		cmp -s "$$built" "$(FIXTURES)/$$name.wasm" || cp "$$built" "$(FIXTURES)/$$name.wasm"; \
	done; \
	for source in programs/src/bin/*.rs; do \
		name="$$(basename "$$source" .rs)"; \
		cmp -s "$(GUESTS)/release/$$name" "$(FIXTURES)/$$name" || cp "$(GUESTS)/release/$$name" "$(FIXTURES)/$$name"; \
	done
	@echo "fixtures are in $(FIXTURES)"

.PHONY: clean
clean: ## Remove what was built; the data folder stays
	$(CARGO) clean
	rm -rf "$(GUESTS)" "$(FIXTURES)"
