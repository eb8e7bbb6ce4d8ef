# The commands. Each can be run on a fresh Debian machine with a Rust toolchain.
#
#   make demo    a cluster at work while it is hurt   DIR=… LIMIT=n ONCE=1 BASE_PORT=7400
#   make test    all tests, 200 simulated clusters, two minutes of chaos and a short demo
#   make bench   beside etcd, on this machine; writes docs/PERFORMANCE.md (tests/load/run.sh)
#   make chaos   a cluster of processes under every fault, as root   MINUTES=2 SEED=… NODES=3
#   make sim     whole clusters by a seed   SEEDS=n FROM=1, or SEED=x TRACE=1
#   make soak    the same for an hour, with faults that no process dies of: what only ever grows
#   make deny    licences and sources of what the program is built of
#   make mixed   a cluster of an older build, upgraded   OLD=program of that build
#   make console the web console in headless Chromium, which is installed for it (124 MB)
#   make fuzz    inputs chosen by what they reach   SECONDS=60 for each, TARGET=… for one (tests/fuzz/run.sh)
#   make check   format, lints, tests, documentation; writes nothing but target/ and the user's cache
#   make docs    writes docs/reference/ from the code
#   make fix     formats the code

.PHONY: chaos soak console fuzz mixed sim demo test check fix bench build tests lints deny docs

DIR ?= /usr/share/doc
LIMIT ?= 0
ONCE ?=
MINUTES ?= 2
SEED ?=
NODES ?= 3
BASE_PORT ?= 7400
target := $(or $(CARGO_TARGET_DIR),target)

# RocksDB is compiled once and linked by every build; see the script.
cargo = deploy/build/setup.sh && \
	ROCKSDB_LIB_DIR="$$(deploy/build/rocksdb.sh)" && export ROCKSDB_LIB_DIR && \
	export ROCKSDB_STATIC=1 && cargo

build:
	$(cargo) build --locked -p quorate-cli -p quorate-demo

demo: build
	$(target)/debug/quorate-demo run --dir '$(DIR)' --limit $(LIMIT) \
		--base-port $(BASE_PORT) --data-dir $(target)/demo $(if $(ONCE),--once)

test: tests deny
	deploy/check/systemd.sh $(target)/debug/quorate
	deploy/check/monitoring.sh $(target)/debug/quorate
	deploy/check/container.sh $(target)/debug/quorate
	deploy/check/recipes.sh $(target)/debug/quorate
	deploy/check/python.sh $(target)/debug/quorate
	deploy/check/walk.py $(target)/debug/quorate docs/QUICKSTART.md docs/OPERATIONS.md
	deploy/check/kubernetes.sh
	deploy/check/chaos.sh $(target)/debug/chaos $(target)/chaos-test
	$(MAKE) sim SEEDS=200
	cd tests/sim && cargo test --locked --target-dir $(abspath $(target))/sim --test planted --test seeds
	$(target)/debug/quorate-demo run --dir '$(DIR)' --limit 300 --once \
		--base-port 17400 --data-dir $(target)/demo-test

console: build
	deploy/check/console.sh $(target)/debug/quorate

# The tests start the programs: built here, not in the middle of a test with a deadline, and with a
# test beside them, so that their dependencies are compiled once for both.
tests:
	$(cargo) build --locked --workspace --bin quorate --bin quorate-demo --test tidy
	if command -v cargo-nextest >/dev/null 2>&1; then \
		$(cargo) nextest run --workspace --locked && cargo test --doc --workspace --locked; \
	else \
		$(cargo) test --workspace --locked; \
	fi

deny:
	deploy/check/deny.sh

lints:
	cargo fmt --all --check
	$(cargo) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" && export RUSTDOCFLAGS && \
		$(cargo) doc --workspace --no-deps --locked

check: lints test

# Each page is held current by a test of this name, beside the code that it is written from.
docs:
	$(cargo) build --locked -p quorate-cli && QUORATE_WRITE_DOCS=1 \
		cargo test --workspace --locked reference_is_current

fix:
	cargo fmt --all

mixed: build
	deploy/check/mixed.sh $(or $(OLD),$(error OLD=program of an older build)) $(target)/debug/quorate

# Network namespaces need root; the programs are built by whoever calls.
chaos:
	$(cargo) build --locked -p quorate-tests --bin chaos --bin test-node
	$(if $(filter 0,$(shell id -u)),,sudo) $(target)/debug/chaos --minutes $(MINUTES) \
		--nodes $(NODES) --dir $(target)/chaos $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)

soak:
	$(MAKE) chaos MINUTES=60 CHAOS_ARGS=--soak

# A workspace of its own, without RocksDB; see docs/decisions/0019-simulation.md.
SEEDS ?= 20
FROM ?= 1
SEED ?=
sim:
	cd tests/sim && cargo build --locked --target-dir $(abspath $(target))/sim
	$(target)/sim/debug/quorate-sim \
		$(if $(SEED),--seed $(SEED) $(if $(TRACE),--trace),--seeds $(SEEDS) --from $(FROM))

bench:
	tests/load/run.sh

fuzz:
	FUZZ_SECONDS=$(or $(SECONDS),60) tests/fuzz/run.sh
