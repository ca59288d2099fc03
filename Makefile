# One command for each thing a person does here. `make help` lists them.
#
#   make setup                          .venv with the exact versions of requirements/; a second call does nothing
#   make test ARGS="tests/recsys -x"    setup, then pytest (without the tests marked slow or gpu)
#   make demo ARGS="--help"             setup, then `recsys demo`
#
# On a machine without a GPU, PyPI's Linux build of torch still brings gigabytes of CUDA. To get the small one:
#
#   TORCH_INDEX_URL=<the PyTorch CPU wheel index, see pytorch.org> make setup
#
# Variables: PYTHON (interpreter for .venv, 3.11 or newer), VARIANT=cpu|cuda (default: cuda where nvidia-smi lists
# a GPU), TORCH_INDEX_URL (index for torch alone), ARGS, and pip's own, such as PIP_INDEX_URL. After setup
# nothing here needs a network. All paths are relative, so the checkout may lie in a folder with spaces.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup test demo check lint format types contracts protos lock wheel clean distclean

ARGS ?=
export PYTHON VARIANT TORCH_INDEX_URL
PY := .venv/bin/python

help: ## list the commands
	@grep -E '^[a-z]+:.*##' Makefile | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

setup: ## make or update .venv (nothing to do: returns at once)
	@scripts/setup.sh

# A file's tests stay in one process: they share what its fixtures made. One thread each: a second one of BLAS or
# OpenMP spins while it waits, and takes its core from another file's tests.
test: export OMP_NUM_THREADS ?= 1
test: setup ## run the fast tests, two to four files at a time; ARGS are pytest's (-n 0: one process)
	$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

demo: setup ## run the demo from logs to a ranked list; ARGS are its flags
	.venv/bin/recsys demo $(ARGS)

check: ## run everything that CI runs, on what is committed
	.ci/run

lint: setup ## ruff: rules and form
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: setup ## ruff: repair what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: setup ## mypy --strict on every package
	$(PY) -m mypy

contracts: setup ## import-linter: the rooms and what each may import
	.venv/bin/lint-imports

protos: setup ## write the stubs anew from protos/**/*.proto
	$(PY) -m protos.generate

lock: setup ## write requirements/lock.txt from what .venv holds
	@sed '/^[^#]/,$$d' requirements/lock.txt > requirements/lock.new
	@$(PY) -m pip freeze --all --exclude-editable \
	  | grep -viE '^(pip|torch|torchrec|fbgemm[-_]gpu.*|faiss[-_].*|triton|nvidia-.*|cuda-.*)==' >> requirements/lock.new
	@mv requirements/lock.new requirements/lock.txt
	@git --no-pager diff --stat -- requirements/lock.txt

wheel: setup ## build dist/*.whl
	$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@rm -rf build *.egg-info

clean: ## remove caches and build output; .venv stays
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . \( -path ./.venv -o -path './.ci/with space' \) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv and the copy that CI runs in
	rm -rf .venv '.ci/with space' .ci/venv
