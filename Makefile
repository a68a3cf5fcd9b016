# Muster: one command for each thing that one does here. `make help` lists them.
SHELL := /bin/bash
export PATH := $(or $(MUSTER_TOOLS),$(HOME)/.cache/muster/tools)/bin:$(PATH)
helm-check := $(or $(MUSTER_TOOLS),$(HOME)/.cache/muster/tools)/helm-python/bin/python scripts/helm-check.py
SEEDS ?= 300
FIRST_SEED ?= 1

.PHONY: help setup demo test check helm fix bench sim histories soak clean

help: ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: ## install what is needed beside Rust
	scripts/setup.sh

demo: ## count the words of real text on this machine, and compare with a plain pipeline
	scripts/setup.sh build
	scripts/demo.sh

test: setup ## every test
	cargo build --quiet --bins
	cargo nextest run --workspace --no-fail-fast

check: setup ## read-only: format, lints, docs, dependencies, the house's own rules
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --quiet
	scripts/deny.sh
	cargo nextest run -p muster-integration --test tidy --status-level fail
	$(helm-check)

helm: setup ## check the chart: lint, render, and compare with Kubernetes' schemas
	$(helm-check)

fix: ## rewrite what can be rewritten
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged --quiet
	cargo fmt --all

sim: ## random clusters: make sim SEEDS=n FIRST_SEED=m; SEED=x shows all of one; BREAK=name leaves a guard out; PROFILE=checked is faster
	SIM_SEEDS=$(SEEDS) SIM_FIRST_SEED=$(FIRST_SEED) SIM_SEED=$(SEED) SIM_BREAK=$(BREAK) \
		cargo test --quiet --profile $(or $(PROFILE),dev) -p muster-integration --test simulation -- --nocapture random_clusters

histories: ## random histories of a job's graph: make histories SEEDS=n FIRST_SEED=m
	PROPTEST_CASES=$(SEEDS) GRAPH_FIRST_SEED=$(FIRST_SEED) cargo test --quiet -p muster-graph --test graph_properties -- --nocapture

bench: setup ## the benchmarks, beside limits and peers: make bench ONLY=row ROUNDS=n QUICK=1; PUBLISH=1 writes docs/benchmarks.md
	scripts/bench-tools.sh
	cargo build --release --quiet -p muster-cli
	ROUNDS=$(ROUNDS) QUICK=$(QUICK) ONLY=$(ONLY) PUBLISH=$(PUBLISH) \
		cargo run --release --quiet -p muster-integration --bin bench

soak: setup ## the slow suites: properties, simulation, real faults (MINUTES bounds them; PART=faults ONLY=etcd chooses; SHORT=1)
	SHORT=$(SHORT) scripts/soak.sh $(or $(MINUTES),30) $(or $(PART),all) $(ONLY)

clean: ## remove what was built
	cargo clean
