# Every task of the project, and all of its set-up: on a fresh machine `make demo` and `make test` need nothing done first.

PYTHON ?=
# An interpreter that is named has an environment of its own, such as .venv-3.13 or .venv-pypy3.11.
VENV := .venv$(if $(PYTHON),-$(shell cd scripts && $(PYTHON) -c 'import smoke; print(smoke.environment_name())'))
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
CARGO := $(shell command -v cargo 2>/dev/null)
GO := $(shell command -v go 2>/dev/null)
NATIVE ?= $(if $(CARGO),yes,no)
ARGS ?=
# Each process of the tests starts servers of its own; one that is given to all can serve one process only.
PARALLEL := $(if $(BACKPRESSURE_TEST_REDIS_URL),,-n auto --dist loadfile)

LOCK := --quiet pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command 'make lock'
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# The extension of this interpreter, if it is built.
EXTENSION := $(wildcard python/backpressure/_native$(shell $(BIN)/python -c \
	'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))' 2>/dev/null))
RUST := Cargo.toml Cargo.lock $(shell find rust -name '*.rs' -o -name Cargo.toml)

export PYO3_PYTHON := $(CURDIR)/$(BIN)/python

ifeq ($(NATIVE),yes)
INSTALLED := $(VENV)/.installed-native
else ifeq ($(NATIVE),no)
INSTALLED := $(VENV)/.installed-pure
ifeq ($(BACKPRESSURE_ENGINE),native)
$(error BACKPRESSURE_ENGINE=native needs the native engine: put cargo on PATH, see https://rustup.rs)
endif
else
$(error NATIVE=$(NATIVE) is neither yes nor no)
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo example test smoke prove soak mutants matrix floors lint fmt docs bench control bench-guard wheels check-workflows version released tools lock clean rebuild

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo 'NATIVE=no leaves out Rust, BACKPRESSURE_ENGINE=auto|native|pure chooses the engine, PYTHON=... the interpreter'

demo: $(INSTALLED) ## watch producers overrun a real server, without and with backpressure (ARGS="--duration 20 --json")
	@$(BIN)/backpressure demo $(ARGS)

example: $(INSTALLED) ## run a job framework's example on a server of its own (ARGS=rq)
	@$(BIN)/python examples/run.py $(ARGS)

test: lint docs ## lint, docs, then the Rust and the Python tests
ifeq ($(NATIVE),yes)
	cargo test --locked --quiet --workspace
endif
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

smoke: ## the tests that need no server and no tool, against an installed wheel, on any interpreter (PYTHON=pypy3)
	@$(or $(PYTHON),python3) scripts/smoke.py $(if $(filter no,$(NATIVE)),--pure) $(ARGS)

prove: $(INSTALLED) ## show every property at length, half an hour: one table (ARGS="engines loom" chooses rows)
	@$(BIN)/python scripts/prove.py $(ARGS)

soak: $(INSTALLED) ## threads, tasks, forks and a flapping server for ten minutes (ARGS="--seconds 60")
	@PYTHONPATH=tests $(BIN)/python -m scripts.soak $(ARGS)

mutants: $(INSTALLED) ## put small faults into law, queue and breaker, one by one, and see that a test notices each
	$(BIN)/python -m scripts.mutants.python $(ARGS)
ifeq ($(NATIVE),yes)
	$(BIN)/python -m scripts.mutants.rust
endif

matrix: $(INSTALLED) ## real job frameworks fill their queues and meet their hooks, each release by itself (ARGS="rq-3 arq")
	$(BIN)/python tests/matrix.py $(ARGS)

floors: $(INSTALLED) $(VENV)/uv/bin/uv ## tests with the oldest release of each library that is allowed (ARGS="tests/providers")
	@$(BIN)/python scripts/floors.py $(ARGS)

lint: $(INSTALLED) ## ruff, mypy, pyright, rustfmt, clippy, and the stub held against the extension
	$(BIN)/python scripts/versions.py
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/basedpyright --level error
	@$(MAKE) --no-print-directory check-workflows
ifeq ($(NATIVE),yes)
	cargo fmt --check
	cargo clippy --locked --quiet --workspace --all-targets -- -D warnings
	@# As a free-threaded interpreter would have it, on any.
	PYO3_CONFIG_FILE=$(CURDIR)/rust/binding/free-threaded.cfg cargo clippy --locked --quiet \
		--package backpressure-native --target-dir target/free-threaded -- -D warnings
	$(BIN)/stubtest --mypy-config-file pyproject.toml backpressure._native
else
	@echo 'make: rustfmt, clippy, stubtest and cargo test are left out: the native engine is not built' >&2
endif

check-workflows: $(VENV)/.requirements $(if $(GO),$(BIN)/actionlint) ## hold the workflows against zizmor, and against actionlint where Go is
	$(BIN)/zizmor --offline --quiet --persona pedantic --collect all --strict-collection .github .pre-commit-config.yaml
ifneq ($(GO),)
	$(BIN)/actionlint
else
	@echo 'make: actionlint is left out: there is no Go' >&2
endif

fmt: $(INSTALLED) ## format and repair what can be repaired
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
ifeq ($(NATIVE),yes)
	cargo fmt
endif

docs: $(INSTALLED) ## build the documentation into target/docs, every warning an error
	$(BIN)/python -m sphinx --quiet --nitpicky --fail-on-warning -d target/doctrees docs target/docs

bench: $(INSTALLED) ## time everything beside its peers and write benches/RESULTS.md (ARGS="-k hit" prints a part)
	@cargo build --locked --quiet --release --target-dir target/benches --package backpressure-floor
	@$(BIN)/python -m pytest benches --benchmark-quiet $(if $(ARGS),,--publish) $(ARGS)

control: $(INSTALLED) ## both laws on a real server for a quarter of an hour: benches/CONTROL.md (ARGS="open away --quick")
	@PYTHONPATH=tests $(BIN)/python -m benches.control.real $(ARGS)

bench-guard: $(VENV)/.python ## count instructions of the core's hot functions against benches/instructions.json
	@$(BIN)/python benches/guard.py $(ARGS)

wheels: $(INSTALLED) ## build sdist, pure wheel and a portable native one for each CPython here; test each away from the tree
	$(BIN)/python -m scripts.wheels dist $(if $(filter no,$(NATIVE)),--pure)

version: $(VENV)/.requirements ## write a new version wherever it is repeated, and into the changelog (VERSION=0.2.0)
	$(BIN)/python scripts/versions.py '$(VERSION)'

released: ## see that a tag is the version that stands everywhere (TAG=v0.2.0)
	@$(or $(PYTHON),python3) scripts/versions.py --tag '$(TAG)'

tools: ## install the servers and programs that tests use, from Debian
	@$(if $(filter 0,$(shell id -u)),,sudo) sh scripts/install_tools.sh $(ARGS)

lock: $(VENV)/uv/bin/uv ## renew requirements/*.txt
	$(VENV)/uv/bin/uv $(LOCK) --extra dev --upgrade --output-file requirements/dev.txt
	$(VENV)/uv/bin/uv $(LOCK) --extra smoke --constraint requirements/dev.txt --output-file requirements/smoke.txt

clean: ## remove everything that was built, the environment too
	rm -rf .venv .venv-* target dist demo-output .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	rm -f python/backpressure/_native*.so python/backpressure/_native*.pyd
	find python tests benches examples scripts -name __pycache__ -prune -exec rm -rf {} +

# Set-up, one stamp a step, so that a step is taken again only when what it reads has changed.

$(VENV)/.python:
	@PYTHON='$(PYTHON)' sh scripts/make_venv.sh $(VENV)
	@touch $@

$(VENV)/uv/bin/uv: $(VENV)/.python
	$(BIN)/python -m venv --clear $(VENV)/uv
	$(VENV)/uv/bin/pip --quiet --disable-pip-version-check install uv==0.13.9

$(VENV)/.requirements: requirements/dev.txt $(VENV)/.python
	@echo 'make: installing requirements/dev.txt' >&2
	@$(PIP) install --require-hashes --requirement $<
	@touch $@

$(VENV)/.installed-native: $(VENV)/.requirements pyproject.toml python/_build/backend.py $(RUST) $(if $(EXTENSION),,rebuild)
	@echo 'make: building the native engine' >&2
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install --no-build-isolation --no-deps --editable .
	@rm -f $(VENV)/.installed-pure
	@touch $@

$(VENV)/.installed-pure: $(VENV)/.requirements pyproject.toml python/_build/backend.py $(if $(EXTENSION),rebuild)
	@echo 'make: no native engine without Rust (https://rustup.rs): installing the pure-Python engine alone' >&2
	@$(PIP) install --no-build-isolation --no-deps --config-settings=pure-python=true --editable .
	@rm -f $(VENV)/.installed-native
	@touch $@

$(BIN)/actionlint: $(VENV)/.requirements
	@echo 'make: installing actionlint' >&2
	@GOBIN=$(CURDIR)/$(BIN) $(GO) install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
	@touch $@

rebuild:
