# make quickstart | test | lint | help; PYTHON, VENV and PIP_INDEX_URL (see pip's manual) can be set.
.DEFAULT_GOAL := help
.PHONY: help quickstart test lint

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A CPU-only PyTorch: make test PIP_INDEX='--index-url https://download.pytorch.org/whl/cpu --extra-index-url https://pypi.org/simple'
PIP_INDEX ?=

$(VENV)/.stamp: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(PIP_INDEX) --editable '.[dev]'
	touch $@

quickstart: $(VENV)/.stamp  ## Set up, then train, prune, quantise and report on embedded data.
	$(BIN)/lit-compress fit --config quickstart.yaml

test: $(VENV)/.stamp  ## Set up, then run the tests.
	$(BIN)/pytest

lint: $(VENV)/.stamp  ## Set up, then check style and types.
	$(BIN)/ruff check lit_compress tests benchmarks experiments
	$(BIN)/ruff format --check lit_compress tests benchmarks experiments
	$(BIN)/mypy

help:  ## Show this list.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'
