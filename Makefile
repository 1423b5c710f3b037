# granian-uring: everything a developer runs. `make help` lists the targets.

PYTHON ?=
VENV ?= .venv
APP ?= examples.hello:app
ARGS ?=

# The runtime that the tests are to run on; empty is each test's own choice.
RUNTIME ?=
# Beside uring, on which everything is tested anyway.
OTHER_RUNTIMES = monoio tokio-uring epoll
ifneq ($(RUNTIME),)
export RUNTIME
export GRANIAN_RUNTIME := $(RUNTIME)
endif
# The fallback is tested where it is needed: in a sandbox without io_uring.
sandbox = $(if $(filter epoll,$(RUNTIME)),python3 tests/without_io_uring.py)
pytest = $(sandbox) $(VENV)/bin/python -m pytest $(if $(RUNTIME),-m 'not io_uring')

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help build run test check format lint types wheel bench clean

# The interpreter is looked for once, and only by the targets that need it.
python = $(if $(python_found),$(python_found),$(eval python_found := $(shell .ci/find-python $(PYTHON))$(if $(filter 0,$(.SHELLSTATUS)),,$(error no usable Python)))$(python_found))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo 'PYTHON=/path/to/python3 chooses the interpreter, APP=module:attr and ARGS="..." what run serves.'

.PHONY: toolchain
toolchain:
	@command -v cargo >/dev/null || { printf 'error: cargo is missing\n\nhint: install a Rust toolchain (1.88 or newer)\n' >&2; exit 1; }
	@command -v cc >/dev/null || { printf 'error: a C compiler (cc) is missing\n\nhint: apt-get install gcc libc6-dev\n' >&2; exit 1; }
	@test "$$(uname -s)" = Linux || { printf 'error: this is %s, expected Linux\n\nhint: io_uring exists on Linux only\n' "$$(uname -s)" >&2; exit 1; }

.PHONY: venv
venv: toolchain
	@set -e; python="$(python)"; \
	if [ "$$(cat $(VENV)/.made-with 2>/dev/null)" != "$$python" ] || [ ! -x $(VENV)/bin/maturin ]; then \
		echo "making $(VENV) with $$python"; \
		"$$python" -m venv --clear $(VENV); \
		$(VENV)/bin/pip install --quiet --disable-pip-version-check 'maturin>=1.9,<2'; \
		echo "$$python" >$(VENV)/.made-with; \
	fi

# Interpreters have target folders of their own, or each would rebuild what the other built.
maturin = CARGO_TARGET_DIR=target/python-$$($(VENV)/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])') $(VENV)/bin/maturin

build: venv ## build with optimisation and install into .venv
	@VIRTUAL_ENV=$(abspath $(VENV)) PATH=$(abspath $(VENV))/bin:$$PATH; export VIRTUAL_ENV PATH; \
	$(maturin) develop --release --quiet
	@echo "built $(VENV)/bin/granian-uring"

run: build ## build, then serve APP on http://127.0.0.1:8000
	@exec $(VENV)/bin/granian-uring $(APP) $(ARGS)

# What the tests, linters and type checkers need, beside the product itself.
.PHONY: deps
deps: venv
	@if ! cmp -s tests/requirements.txt $(VENV)/.requirements; then \
		$(VENV)/bin/pip install --quiet --disable-pip-version-check -r tests/requirements.txt && \
		cp tests/requirements.txt $(VENV)/.requirements; \
	fi

test: test-rust test-python test-bench test-systemd ## install what tests need, and run every test; RUNTIME=epoll: on that

# What is not about a runtime has no need to be run on one.
test-rust: toolchain ## the core: unit and integration tests
	$(sandbox) cargo test --locked --package granian-uring \
		$(if $(RUNTIME),--test proactor_laws --test drain,--package load)

sim: toolchain ## simulate the server: SEED=7 tells what happens in one world, SEEDS=100000 tries many
	$(if $(SEED),SEED=$(SEED)) $(if $(SEEDS),SEEDS=$(SEEDS)) cargo test --locked \
		--package granian-uring --test simulation $(if $(SEEDS),--release) -- --nocapture

# Plain cargo, with what cargo-fuzz would say to the compiler: coverage that guides the fuzzer, and
# the address sanitizer, which a stable compiler has when it is asked like this.
fuzz_flags = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address --cfg fuzzing
fuzz_host = $(shell rustc -vV | sed -n 's/^host: //p')
SECONDS ?= 60

fuzz_targets = request chunked response proxy_protocol forwarded websocket

fuzz: toolchain ## fuzz what reads from clients: SECONDS=60 for each target, TARGET=request for one
	@mkdir -p $(addprefix fuzz/corpus/,$(fuzz_targets)) fuzz/artifacts
	RUSTC_BOOTSTRAP=1 RUSTFLAGS="$(fuzz_flags)" cargo build --locked --release \
		--manifest-path fuzz/Cargo.toml --target $(fuzz_host)
	@# The corpus of the tests and the seeds are where the fuzzer starts from.
	@cp tests/corpus/http1/*/*.http fuzz/corpus/request
	@cp -r fuzz/seeds/. fuzz/corpus
	@for case in $$(grep -il '^transfer-encoding: *chunked' tests/corpus/http1/*/*.http); do \
		sed '1,/^\r$$/d' "$$case" >"fuzz/corpus/chunked/$$(basename "$$case" .http)"; \
	done
	@set -e; for target in $(or $(TARGET),$(fuzz_targets)); do \
		nice fuzz/target/$(fuzz_host)/release/$$target fuzz/corpus/$$target -max_len=2048 \
			-artifact_prefix=fuzz/artifacts/$$target- -max_total_time=$(SECONDS) -print_final_stats=1; \
	done

test-python: build deps ## the server process, its loop and its command line
	$(pytest) tests/python
	@# All of them can be run like this; these say most about the loop.
	@set -e; for loop in asyncio uvloop rloop; do \
		$(pytest) -q tests/python -m any_loop --server-loop $$loop; \
	done

test-bench: build deps ## the benchmark's own arithmetic, and one case of it
	cargo build --locked --package load
	$(VENV)/bin/python -m pytest benches/harness

test-systemd: build deps ## the server under a real systemd (needs root)
	$(pytest) tests/systemd

# test-rust has the laws and the drain of each of them.
test-runtimes: build deps ## a short set of tests on the runtimes other than uring
	@set -e; for runtime in $(OTHER_RUNTIMES); do \
		echo "--- $$runtime"; \
		$(MAKE) --no-print-directory test-short RUNTIME=$$runtime; \
	done

test-short:
	$(pytest) -q $(addprefix tests/python/,$(short_set))
	$(pytest) -q 'tests/systemd/test_restart.py::test_restarts_under_load_lose_nothing[unix-5]'

short_set = asgi/test_messages.py asgi/test_bodies.py asgi/test_responses.py asgi/test_stopping.py \
	asgi/test_websocket.py loop/test_ring_signals.py loop/test_ring_network.py rsgi/test_answers.py \
	wsgi/test_responses.py

autobahn: build deps ## fuzz WebSockets with the Autobahn test suite (needs CPython 2.7): SECTIONS="1.* 12.*"
	$(VENV)/bin/python tests/autobahn/run.py $(foreach section,$(SECTIONS),'$(section)')

check: format lint types test test-runtimes ## all checks, as CI runs them

format: deps ## formatting, without changing a file (make fix changes them)
	cargo fmt --all --check
	$(VENV)/bin/ruff format --check $(python_sources)

lint: build deps ## clippy and ruff
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --quiet --no-deps --package granian-uring
	$(VENV)/bin/ruff check $(python_sources)

types: build deps ## mypy, and the stub file against the compiled module
	$(VENV)/bin/mypy -p granian_uring -p examples
	$(VENV)/bin/mypy tests/python
	cd tests/systemd && ../../$(VENV)/bin/mypy --config-file ../../pyproject.toml .
	cd benches && ../$(VENV)/bin/mypy --config-file ../pyproject.toml *.py
	cd benches/harness && MYPYPATH=../../tests/systemd \
		../../$(VENV)/bin/mypy --config-file ../../pyproject.toml .
	$(VENV)/bin/python -m mypy.stubtest granian_uring._native \
		--allowlist tests/stubtest-allowlist

fix: deps ## format and repair what a program can
	cargo fmt --all
	$(VENV)/bin/ruff format $(python_sources)
	$(VENV)/bin/ruff check --fix $(python_sources)

wheel: venv ## a release wheel in dist/
	@$(maturin) build --release --strip --out dist --interpreter $(VENV)/bin/python
	@ls dist

# The newest Python is measured, and one case on the default one too.
bench: build deps ## beside the peers, case by case: ARGS=--quick takes 5 minutes, else up to an hour
	$(MAKE) build deps VENV=.venv-newest PYTHON="$$(.ci/find-python --newest)"
	cargo build --locked --release --package load --package floor
	cargo build --locked --release --example hello
	$(VENV)/bin/python benches/harness/run.py --ours .venv-newest/bin/granian-uring \
		--other $(VENV)/bin/granian-uring $(ARGS)

bench-parts: venv ## time the parts of the server with Criterion: ARGS=http1 for some of them
	cargo bench --locked --bench parts -- $(ARGS)
	$(VENV)/bin/python benches/scopes.py $(ARGS)

icount: venv ## count instructions of the parts (needs valgrind), fail past 3 %; RECORD=1 writes them down
	$(VENV)/bin/python benches/icount.py $(if $(RECORD),--record)

access-log-cost: toolchain ## instructions per request with and without the access log (needs valgrind)
	cargo build --locked --release --example hello
	python3 benches/access_log.py --most 5

clean: ## remove what was built
	rm -rf target dist build $(VENV) pybind/granian_uring/_native*.so

python_sources = pybind examples tests benches
.PHONY: test-rust test-runtimes test-short sim fuzz test-python test-bench test-systemd autobahn fix bench-parts icount access-log-cost
