# make study   everything: environment, corpus, models, circuits, MLflow, pictures     (PROFILE=quick: minutes; PROFILE=full: hours)
# make test    the whole test suite            make check   ruff, mypy, import-linter
# make ui      MLflow on this project's store  make bench   speed, as ratios
# make docs    the pages in docs/ as a site        make clean   remove what was made
#
# PYTHON=python3.12 chooses the interpreter, PIP_ARGS='--index-url ...' is passed to pip.

PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
PROFILE ?=
PIP     := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt $(PIP_ARGS)

.PHONY: study test check ui bench docs clean need

study: $(VENV)/.installed
	@$(BIN)/ontogeny study $(PROFILE)

test: $(VENV)/.installed-test
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.installed-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

ui: $(VENV)/.installed
	@$(BIN)/ontogeny ui

BENCHES := $(foreach name,paths roles trajectories tuning publishing executors hub,$(BIN)/python tests/benchmarks/$(name).py &&) true

bench: $(VENV)/.installed-test
	@$(BIN)/python tests/benchmarks/bench.py $(BENCH_ARGS)
	@$(if $(BENCH_ARGS),true,$(BENCHES))

docs: $(VENV)/.installed
	@$(PIP) -e '.[docs]'
	@$(BIN)/mkdocs build --strict --quiet --site-dir .cache/site
	@echo "Open .cache/site/index.html"

# Results only; the environment and the published study in docs/ stay.
clean:
	@rm -rf .cache data/* mlruns/* dvc.lock .dvc/tmp .dvc/cache
	@git checkout -q -- data mlruns
	@echo "Removed data, caches and tracked runs. 'rm -rf $(VENV)' removes the environment too."

$(VENV)/.installed: pyproject.toml constraints.txt | need
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned packages into $(VENV) (once; the README tells the size) ..."
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "Installing the test tools ..."
	@$(PIP) -e '.[test,check]'
	@touch $@

need:
	@command -v git >/dev/null || { echo "git is missing. Debian/Ubuntu: sudo apt-get install git"; exit 2; }
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing. Debian/Ubuntu: sudo apt-get install python3 python3-venv"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1). Debian 12/Ubuntu 24.04 have it (sudo apt-get install python3 python3-venv); or: make PYTHON=python3.12 ..."; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "Python's venv module is missing. Debian/Ubuntu: sudo apt-get install python3-venv"; exit 2; }
	@git rev-parse --is-inside-work-tree >/dev/null 2>&1 || { \
	  echo "This folder is no git repository, which DVC needs: clone it (git clone ...) instead of unpacking an archive."; exit 2; }
