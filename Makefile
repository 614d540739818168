# ARCO: `make demo` runs the whole pipeline, `make test` checks everything. Both set up .venv first, once.
# `make images` builds the container image of steps and Ray clusters; it needs Docker and Python 3.11 only.
#
#   make demo                              a synthetic cohort, four to nine minutes on two cores
#   make demo DATA=scans LABELED=2         your own scans: 2 labelled patients (or a ratio: LABELED=0.05)
#   make demo SEEDS="0 1 2" WORKERS=1 STORE=s3://bucket/arco ARGS="--set finetune.steps=500"
#   make images ACCELERATOR=cuda          its SBOM goes to dist/; docs/deploy.md has the rest

PYTHON ?= python3.11
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check

DATA ?=
LABELED ?=
SEEDS ?=
STORE ?=
WORKERS ?=
ARGS ?=
ACCELERATOR ?= cpu
# Processes of the tests; a file's tests stay in one.
JOBS ?= 2

.PHONY: help demo test lint format setup images clean

help:
	@sed -n '/^#/!q;s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.installed
	@$(BIN)/python pipelines/arco_full.py run \
		$(if $(DATA),--data "$(DATA)") $(if $(LABELED),--labeled $(LABELED)) \
		$(if $(SEEDS),--seeds $(SEEDS)) $(if $(STORE),--store "$(STORE)") \
		$(if $(WORKERS),--set run.workers=$(WORKERS)) $(ARGS)

test: lint
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 20

lint: setup
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

images:
	@$(PYTHON) -m infra.images.build --accelerator $(ACCELERATOR) $(ARGS)

# What `make test` and contributors need; `make demo` installs less.
setup: $(VENV)/.installed-dev

$(VENV)/.installed: pyproject.toml requirements.lock | $(VENV)/bin/pip
	@echo "Installing ARCO into $(VENV): about 2 GB, a few minutes, once."
	@$(PIP) install --quiet --constraint requirements.lock --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what the tests and linters need into $(VENV)."
	@$(PIP) install --quiet --constraint requirements.lock --editable '.[dev]'
	@touch $@

# Debian ships python3.11 without the module that puts pip into a virtual environment.
$(VENV)/bin/pip:
	@command -v $(PYTHON) >/dev/null || { \
		echo "error: $(PYTHON) is not installed. ARCO needs Python 3.11 or newer:" >&2; \
		echo "  Debian: apt-get install python3.11 python3.11-venv    macOS: brew install python@3.11" >&2; \
		echo "  Another name or place: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "Installing $$package, which $(PYTHON) lacks."; \
			{ apt-get -qq update && apt-get -qq install -y $$package >/dev/null; } || exit 1; \
		else \
			echo "error: $(PYTHON) cannot make virtual environments. Run this, then make again:" >&2; \
			echo "  sudo apt-get install $$package" >&2; exit 1; \
		fi; }
	@$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
