# make run   set up .venv if needed, run the main job on the embedded screen
# make test  set up .venv if needed, run the tests
# make test-slow  run those that start `pqa up` and a browser (chromium), about ten minutes
# make lmdeploy set up .venv-lmdeploy, an environment with LMDeploy (needs a CUDA GPU to be of use)
# make bench measure speed and memory against peers from PyPI; writes tests/benchmarks/RESULTS.md
.DEFAULT_GOAL := help
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help run test test-slow bench lint constraints lmdeploy

help:
	@grep -E '^# make' Makefile | cut -c3-

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "CPython 3.11 is needed (looked for '$(PYTHON)'; set PYTHON=...)"; exit 1; }
	@echo "Setting up .venv (some minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --progress-bar off -c constraints.txt -e '.[dev]'
	@touch $(READY)

run: $(READY)
	@$(BIN)/pqa benchmark --workspace workspace

test: $(READY)
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=10 -m "not slow"

test-slow: $(READY)
	@$(BIN)/python -m pytest --durations=10 -m slow

bench: $(READY)
	@$(BIN)/python -m pip install --quiet --progress-bar off -c constraints.txt -e '.[bench]'
	@$(BIN)/python -m tests.benchmarks

lint: $(READY)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

constraints: $(READY)
	@{ echo "# Exact versions known to work together on CPython 3.11. Made with: make constraints"; \
	   $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' | sort -f; } > constraints.txt

# The project pins another torch than LMDeploy takes, so it comes without its dependencies, which are in the list.
lmdeploy:
	@test -x .venv-lmdeploy/bin/python || $(PYTHON) -m venv .venv-lmdeploy
	@.venv-lmdeploy/bin/python -m pip install --quiet --progress-bar off -r deployments/lmdeploy/requirements.txt
	@.venv-lmdeploy/bin/python -m pip install --quiet --progress-bar off --no-deps -e .
