# Everything starts here: `make repro` sets up and runs the pipeline, `make test` the tests.
# Re-running is cheap: set-up happens again only when its files change.

PYTHON ?= python3
BIN := .venv/bin
# Stages are started by DVC as `python stages/...`: they must find this environment's python.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Nothing phones home.
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export ORT_DISABLE_TELEMETRY := 1
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false
# Byte code is kept: images of containers like to forbid it, and then every process compiles TensorFlow anew (10 s).
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# A zip download and a folder that git refuses are told before anything is installed.
.PHONY: checked
checked:
	@"$(PYTHON)" -c 'import sys; sys.exit("repix needs Python 3.11 to 3.13, this is %d.%d: make repro PYTHON=python3.11" % sys.version_info[:2] if not (3, 11) <= sys.version_info[:2] < (3, 14) else 0)'
	@"$(PYTHON)" install.py --check

# A target's name is its stamp: a half-finished installation has none and starts again.
.venv/.ready: pyproject.toml constraints.txt install.py | checked
	@"$(PYTHON)" install.py
	@touch $@

# What no run needs, such as a browser's driver and JAX, comes with the tests.
.venv/.tests: .venv/.ready
	@"$(PYTHON)" install.py --tests
	@touch $@

.PHONY: setup
setup: .venv/.ready ## create .venv and install the exact environment (REPIX_TORCH: docs/setup.md)

BEGUN := $(shell date +%s)

.PHONY: repro
repro: .venv/.ready ## run the pipeline on the embedded sample, print the results
	@"$(BIN)/python" -m dvc repro
	@"$(BIN)/repix" results
	@"$(BIN)/repix" verify --lock-only || true
	@echo
	@"$(BIN)/repix" doctor --gpu
	@echo "pictures      translations/<cell>/source_to_target.png: source | output | target"
	@echo "exported      exports/<cell>/source_to_target/"
	@echo "MLflow        make ui"
	@took=$$(( $$(date +%s) - $(BEGUN) )); echo "took          $$(( took / 60 )) min $$(( took % 60 )) s, $$(du -sh . | cut -f1) of disk"
	@echo "next          dvc exp run -S models.pix2pix_small.epochs=4 (with . .venv/bin/activate); see README.md"

.PHONY: test
test: .venv/.tests ## run the tests, in a process for each core, up to four
	@"$(BIN)/python" -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: portable
portable: .venv/.tests ## the same cells on other CPUs, hidden, forced and emulated: which bits hold
	@"$(BIN)/python" -m checks.portable

UI_PORT ?= 5000

# One worker serves one person; with more, a busy machine ends those that it does not hear from within seconds.
.PHONY: ui
ui: .venv/.ready ## MLflow's pages on http://127.0.0.1:5000 (UI_PORT=5001 where it is taken, as by AirPlay on macOS)
	@"$(BIN)/mlflow" ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}" --host 127.0.0.1 --port $(UI_PORT) --workers 1

.PHONY: demo
demo: .venv/.ready ## a page to try the exported models, on http://127.0.0.1:7860
	@"$(BIN)/repix" demo

.PHONY: bench
bench: .venv/.tests ## run the benchmarks, write docs/performance.md (BENCH=--quick: only see that they run)
	@"$(BIN)/python" -m benchmarks.bench $(BENCH)

.PHONY: lint
lint: .venv/.tests ## check style
	@"$(BIN)/ruff" check . && "$(BIN)/ruff" format --check .

# Nothing but MkDocs: what `make docs` needs beside the environment.
.venv/.docs: .venv/.ready
	@"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

.PHONY: docs
docs: .venv/.docs ## build the documentation as a site, build/site/index.html; a broken link fails
	@NO_MKDOCS_2_WARNING=1 "$(BIN)/python" -m mkdocs build --strict --quiet
	@echo "docs          build/site/index.html"
