# Every target sets itself up. It needs Python 3.10 or newer, git and make; nothing else has to be installed before.
# Without an active virtual environment it makes .venv here; an active one is used as it is.
.DEFAULT_GOAL := help
.PHONY: help install poisson test export-check notebooks pytest demo lab bench docs readme export clean distclean hooks python-check
SHELL := /bin/sh

ifdef VIRTUAL_ENV
VENV := $(VIRTUAL_ENV)
else
VENV := .venv
endif
BIN := $(abspath $(VENV))/bin
STAMP := $(VENV)/.mvs_nb-installed
DOCS_STAMP := $(VENV)/.mvs_nb-docs-installed
POISSON_STAMP := $(VENV)/.mvs_nb-poisson-installed
WORKERS ?= 2
RESULTS ?= results
# one thread a worker: two workers with all threads each take three times as long on two cores
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# the kernel that notebooks run in is the environment's own
export PATH := $(BIN):$(PATH)

# The newest Python that is new enough; PYTHON=... chooses another.
OLD_ENOUGH := import sys; sys.exit(sys.version_info < (3, 10))
PYTHON ?= $(shell for p in python3 python python3.13 python3.12 python3.11 python3.10; do \
	command -v $$p >/dev/null 2>&1 && $$p -c '$(OLD_ENOUGH)' 2>/dev/null && { echo $$p; break; }; done)

# An environment that last served another clone is pointed here again.
ifneq ($(shell cat "$(STAMP)" 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

help:
	@echo "make demo     run the tour on the shipped data and say where the results are"
	@echo "make test     everything that continuous integration checks"
	@echo "make lab      open JupyterLab on the tour"
	@echo "make bench    measure against plain reference code and print the ratios"
	@echo "make docs     build the documentation site into _docs/"
	@echo "make poisson  install Open3D as well, for meshes by screened Poisson reconstruction (600 MB)"
	@echo "make export   notebooks -> mvs_nb/ and README.md, then clean the notebooks"
	@echo "make hooks    clean notebooks before every commit (git hook of this clone)"
	@echo "make clean    remove results and build files; make distclean removes .venv too"

python-check:
	@if [ -z "$(PYTHON)" ]; then echo "make: no Python 3.10 or newer found; install one (python.org, or your system's python3 package), or say: make PYTHON=/path/to/python3" >&2; exit 1; fi
	@$(PYTHON) -c '$(OLD_ENOUGH)' 2>/dev/null || { echo "make: $(PYTHON) is older than 3.10 or does not run; say: make PYTHON=/path/to/python3 with a newer one" >&2; exit 1; }

$(VENV)/bin/python:
	@$(MAKE) --no-print-directory python-check
	@echo "Making $(VENV) (once) ..."
	@$(PYTHON) -m venv "$(VENV)" || { rm -rf "$(VENV)"; echo "make: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu install python3-venv" >&2; exit 1; }

# not pyproject.toml: every export writes it anew from settings.ini
$(STAMP): settings.ini setup.py constraints.txt | $(VENV)/bin/python
	@"$(BIN)/python" -c '$(OLD_ENOUGH)' || { echo "make: the active environment $(VENV) has a Python older than 3.10; deactivate it" >&2; exit 1; }
	@echo "Installing mvs_nb and what it needs into $(VENV) (a few minutes, once) ..."
	@"$(BIN)/python" -m pip install --quiet -e ".[dev,sfm]" -c constraints.txt
	@printf '%s' "$(CURDIR)" > "$(STAMP)"

$(DOCS_STAMP): settings.ini setup.py constraints.txt | $(STAMP)
	@echo "Installing the documentation tools into $(VENV) (once) ..."
	@"$(BIN)/python" -m pip install --quiet -e ".[dev,sfm,docs]" -c constraints.txt
	@touch "$(DOCS_STAMP)"

$(POISSON_STAMP): settings.ini setup.py constraints.txt | $(STAMP)
	@echo "Installing Open3D into $(VENV) (once) ..."
	@"$(BIN)/python" -m pip install --quiet -e ".[dev,sfm,poisson]" -c constraints.txt
	@touch "$(POISSON_STAMP)"

install: $(STAMP)

poisson: $(STAMP) $(POISSON_STAMP)

# --- checks -----------------------------------------------------------------------------------
test: export-check notebooks pytest

export-check: $(STAMP)
	@"$(BIN)/python" tests/export_check.py

notebooks: $(STAMP)
	@"$(BIN)/nbdev_test" --n_workers $(WORKERS) --timing

pytest: $(STAMP)
	@"$(BIN)/python" -m pytest -q tests

# --- use --------------------------------------------------------------------------------------
demo: $(STAMP)
	@"$(BIN)/python" docs/tour.py nbs/00_tour.ipynb "$(RESULTS)"

# docs/jupyter: dash, which Open3D brings, would make JupyterLab ask to be rebuilt
lab: $(STAMP)
	@JUPYTER_CONFIG_PATH="$(CURDIR)/docs/jupyter" "$(BIN)/jupyter" lab nbs/00_tour.ipynb

bench: $(STAMP)
	@"$(BIN)/mvs_nb" bench

# --- make -------------------------------------------------------------------------------------
export: $(STAMP)
	@"$(BIN)/nbdev_export"
	@"$(BIN)/mvs_nb" clean nbs
	@"$(BIN)/python" docs/readme.py

readme: $(STAMP)
	@"$(BIN)/python" docs/readme.py

docs: $(STAMP) $(DOCS_STAMP)
	@"$(BIN)/python" docs/build.py

hooks: $(STAMP)
	@git config core.hooksPath .githooks
	@echo "Notebooks are cleaned before every commit in this clone; undo with: git config --unset core.hooksPath"

clean:
	rm -rf "$(RESULTS)" runs build dist _proc _docs _sphinx jupyter_execute .pytest_cache .hypothesis *.egg-info nbs/_proc
	find mvs_nb nbs tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
	find nbs -name .ipynb_checkpoints -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	rm -rf .venv
