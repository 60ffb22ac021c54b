# make quickstart | test | lint | help; PYTHON, VENV and PIP_INDEX_URL (see pip's manual) can be set.
.DEFAULT_GOAL := help
.PHONY: package processors versions kills fuzz help quickstart test fast lint minimum nightly slow slow-pruning slow-networks-1 slow-networks-2 slow-runs slow-processes slow-pages slow-search slow-ray mutants foreign zoo docs

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Environment with the oldest versions that setup.cfg allows.
MINIMUM ?= .venv-minimum
CONSTRAINT ?= .ci/minimum.txt
# Environment with the libraries whose modules are tried, see .ci/foreign.txt.
FOREIGN ?= .venv-foreign
# Environment with the libraries of the foreign networks, see .ci/zoo.txt.
ZOO ?= .venv-zoo
# Environment with ExecuTorch and LiteRT, whose files run on other processors too.
RUNTIMES ?= .venv-runtimes
# Folder with FashionMNIST in torchvision's layout, for make processors.
LIT_COMPRESS_DATA ?= data
# Environment with Ray, which is large.
RAY ?= .venv-ray
# Environment that builds the documentation, see docs/requirements.txt.
DOCS ?= .venv-docs
# A CPU-only PyTorch: make test PIP_INDEX='--index-url https://download.pytorch.org/whl/cpu --extra-index-url https://pypi.org/simple'
PIP_INDEX ?=
# One process a core, one thread each; the tests of a file share what it has fitted.
PARALLEL := OMP_NUM_THREADS=1 TQDM_DISABLE=1
WORKERS ?= auto
XDIST := -n $(WORKERS) --dist loadfile
# Tests without long fits: about a minute.
FAST := tests/artifact tests/benchmark tests/timing tests/datamodules tests/golden tests/measure tests/modules tests/packed tests/pruning tests/report \
	tests/export tests/quantization/test_convert.py tests/test_cli_errors.py tests/test_errors.py \
	tests/files tests/test_attributes.py tests/test_progress.py tests/test_structure.py
# Each part of the slow tests ends within 30 minutes.
SLOW_PRUNING := tests/pruning
SLOW_RUNS := tests/artifact tests/callbacks tests/faults tests/processors tests/test_cli.py tests/test_configs.py tests/test_end_to_end.py
SLOW_PAGES := tests/report tests/test_docs.py tests/test_quantize_verb.py
MUTANTS ?= 200
KILLS ?= 20

$(VENV)/.stamp: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(PIP_INDEX) --editable '.[dev]'
	touch $@

$(MINIMUM)/.stamp: setup.cfg pyproject.toml $(CONSTRAINT)
	$(PYTHON) -m venv $(MINIMUM)
	$(MINIMUM)/bin/pip install --quiet $(PIP_INDEX) --constraint $(CONSTRAINT) --editable '.[test,plots]'
	touch $@

$(FOREIGN)/.stamp: setup.cfg pyproject.toml .ci/foreign.txt
	$(PYTHON) -m venv $(FOREIGN)
	$(FOREIGN)/bin/pip install --quiet $(PIP_INDEX) --requirement .ci/foreign.txt --editable '.[test]'
	touch $@

$(ZOO)/.stamp: setup.cfg pyproject.toml .ci/zoo.txt
	$(PYTHON) -m venv $(ZOO)
	$(ZOO)/bin/pip install --quiet $(PIP_INDEX) --requirement .ci/zoo.txt --editable '.[test]'
	touch $@

$(RUNTIMES)/.stamp: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(RUNTIMES)
	$(RUNTIMES)/bin/pip install --quiet $(PIP_INDEX) --editable '.[test,executorch,litert]'
	touch $@

$(RAY)/.stamp: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(RAY)
	$(RAY)/bin/pip install --quiet $(PIP_INDEX) --editable '.[test,ray]'
	touch $@

$(DOCS)/.stamp: docs/requirements.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install --quiet --requirement docs/requirements.txt
	touch $@

quickstart: $(VENV)/.stamp  ## Set up, then train, prune, quantise and report on embedded data.
	$(BIN)/lit-compress fit --config quickstart_dense.yaml
	$(BIN)/lit-compress fit --config quickstart.yaml \
	    --trainer.callbacks.baseline=runs/quickstart_dense/checkpoint/dense.ckpt

test: $(VENV)/.stamp  ## Set up, then run the tests and the examples of the docstrings.
	$(PARALLEL) $(BIN)/pytest $(XDIST)

fast: $(VENV)/.stamp  ## Run the tests that take no long fit, about a minute.
	$(PARALLEL) $(BIN)/pytest $(XDIST) $(FAST)

lint: $(VENV)/.stamp  ## Set up, then check style and types.
	$(BIN)/ruff check lit_compress tests benchmarks experiments examples docs/_build .ci
	$(BIN)/ruff format --check lit_compress tests benchmarks experiments examples docs/_build .ci
	$(BIN)/mypy

package:  ## Build the distributions, and use each in an environment of its own (3 minutes).
	PYTHON=$(PYTHON) PIP_INDEX='$(PIP_INDEX)' .ci/package.sh

versions: $(VENV)/.stamp  ## Run the fast tests with each Python and torch, and write docs/versions.md (an hour).
	$(BIN)/python tests/versions/run.py

minimum: $(MINIMUM)/.stamp  ## Run the fast tests with the oldest versions that setup.cfg allows.
	$(PARALLEL) $(MINIMUM)/bin/python -m pytest $(XDIST) $(FAST)

slow: slow-pruning slow-networks-1 slow-networks-2 slow-runs slow-processes slow-pages slow-search  ## Run what needs real data, a second process, or minutes.

slow-pruning: $(VENV)/.stamp  ## Slow tests of the channel analysis and of pruning.
	$(PARALLEL) $(BIN)/pytest $(XDIST) -m slow $(SLOW_PRUNING)

slow-networks-1: $(VENV)/.stamp  ## Int8 files of the first half of torchvision's networks.
	LIT_COMPRESS_ZOO=1/2 $(PARALLEL) $(BIN)/pytest -n $(WORKERS) --dist load -m slow tests/quantization

slow-networks-2: $(VENV)/.stamp  ## Int8 files of the second half.
	LIT_COMPRESS_ZOO=2/2 $(PARALLEL) $(BIN)/pytest -n $(WORKERS) --dist load -m slow tests/quantization

slow-runs: $(VENV)/.stamp  ## Slow tests of whole runs: killed, resumed, in two processes, on real data.
	$(BIN)/pytest -m slow $(SLOW_RUNS)

slow-processes: $(VENV)/.stamp  ## Several processes: each callback, two nodes, killed, resumed, a cluster's stand-in.
	$(PARALLEL) $(BIN)/pytest -m slow tests/processes

slow-pages: $(VENV)/.stamp  ## Pages in a browser (Chromium), examples with real data, and a long conversion.
	$(BIN)/pytest -m slow $(SLOW_PAGES)

slow-ray: $(RAY)/.stamp  ## Fits of Ray Train, one of them with a killed worker (5 minutes; Linux).
	$(RAY)/bin/python -m pytest -m slow tests/on_ray

slow-search: $(VENV)/.stamp  ## Searches of several processes, one of them killed (5 minutes).
	$(BIN)/pytest -m slow tests/search

mutants: $(VENV)/.stamp  ## Put small faults into the core, and count those that the tests notice.
	$(BIN)/python tests/mutants/run.py --sample $(MUTANTS)

foreign: $(FOREIGN)/.stamp  ## Prune and quantise the LightningModules of other libraries.
	$(PARALLEL) $(FOREIGN)/bin/python -m pytest -m slow tests/foreign

processors: $(RUNTIMES)/.stamp  ## Run files on processors that QEMU emulates, and write docs/processors.md (20 minutes; Debian).
	OMP_NUM_THREADS=1 TQDM_DISABLE=1 $(RUNTIMES)/bin/python -W ignore tests/processors/run.py --data-dir $(LIT_COMPRESS_DATA)

zoo: $(ZOO)/.stamp  ## Prune and quantise the networks of tests/zoo, and write docs/networks.md (an hour).
	$(ZOO)/bin/python tests/zoo/run.py
	$(ZOO)/bin/python tests/zoo/peer.py
	$(ZOO)/bin/python tests/zoo/table.py
	$(ZOO)/bin/python -m pytest tests/zoo

docs: $(DOCS)/.stamp  ## Build the documentation site in site/; a dead link is an error.
	$(DOCS)/bin/mkdocs build --strict

fuzz: $(VENV)/.stamp  ## Read 10,000 files that were changed at random (3 minutes).
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/fuzz/mutations.py --count 10000

kills: $(VENV)/.stamp  ## Kill a whole fit at random moments, go on, and compare what it leaves (7 minutes; Linux).
	$(BIN)/python tests/faults/kill_resume.py --kills $(KILLS)

faults: $(VENV)/.stamp  ## Let each call of the system fail while files are replaced, or kill the process in it (2 minutes).
	PYTHONPATH=tests $(BIN)/python -m faults.writing

nightly: slow slow-ray kills faults fuzz mutants foreign zoo processors  ## All that make test leaves out.

help:  ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20
