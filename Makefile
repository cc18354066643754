# One environment (.venv, from requirements.lock) and what is done in it. `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3.11
ARGS ?=
DATA ?=
STORAGE ?= $(or $(QUARTERTURN_STORAGE),results)
BIN := .venv/bin
# Written last, so an installation that was interrupted does not count; INSTALLING is what it leaves behind.
INSTALLED := .venv/.installed
INSTALLING := .venv/.installing

# Neither Ray nor MLflow reports home from a study.
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help setup demo paper test test-slow check check-gpu bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s%s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "PYTHON=... chooses the interpreter (now $(PYTHON)); ARGS='--scale smoke' passes flags to demo, ARGS='-k name' to the tests."

setup: $(INSTALLED) ## make .venv from requirements.lock (about 7 GB, some minutes)

# What a person reads when it fails: one last line with the cause and what to do.
STOPPED = { echo "make: the installation did not finish ($$(df -Ph . | awk 'END {print $$4}') are free here, it takes about 7 GB)." \
  "Once the cause above is gone, the same command starts over." >&2; exit 1; }

$(INSTALLED): requirements.lock pyproject.toml
	@command -v $(PYTHON) > /dev/null || { \
	  echo "make: '$(PYTHON)' was not found. Install Python 3.11 with venv, or name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || { \
	  echo "make: '$(PYTHON)' is older than Python 3.11, or lacks venv. Name another one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@[ ! -e $(INSTALLING) ] || echo "make: the last installation was interrupted; this one starts over" >&2
	@if [ -e $(INSTALLING) ] || ! $(BIN)/python -c 'import pip' 2> /dev/null; then rm -rf .venv; $(PYTHON) -m venv .venv || $(STOPPED); fi
	@rm -f $@; touch $(INSTALLING) || $(STOPPED)
	@$(BIN)/python -m pip install --disable-pip-version-check -r requirements.lock || $(STOPPED)
	@$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e . || $(STOPPED)
	@mv $(INSTALLING) $@; touch $@

demo: $(INSTALLED) ## the rotation study at scale laptop, on real images that come with a package
	$(BIN)/python studies/rotation_period.py $(ARGS)

# Without DATA: the sizes of a laptop, on real images that come with packages. The thesis has segmentations of BraTS
# only; BYOL-TracIn starts from random weights.
WORKS ?= thesis byol_tracin
OF = $(if $(filter $(1),$(WORKS)),$(BIN)/python studies/$(2).py \
  $(if $(DATA),--scale full --data-root "$(DATA)" --datasets $(3)) --storage "$(STORAGE)" $(4) $(ARGS))
WEIGHTS := $(if $(PRETRAINED),--pretrained "$(PRETRAINED)")
MAPPED := brats lung_mask kvasir

paper: $(INSTALLED) ## all studies of both works (WORKS=thesis: of one), their tables and figures; at full scale: make paper DATA=FOLDER PRETRAINED=FILE
	$(call OF,thesis,rotation_period,$(MAPPED),$(WEIGHTS))
	$(call OF,thesis,segmentation,brats,$(WEIGHTS))
	$(call OF,thesis,saliency_methods,$(MAPPED),$(WEIGHTS))
	$(call OF,thesis,hog_svm,$(MAPPED),$(WEIGHTS))
	$(call OF,thesis,augmentation_types,$(MAPPED),$(WEIGHTS))
	$(call OF,byol_tracin,byol_positives,isic2019 chestxray14)
	$(call OF,byol_tracin,transfer,isic2019 chestxray14)
	$(call OF,byol_tracin,tracin_checkpoints,isic2019,--without-training)
	$(BIN)/python -m analysis paper --storage "$(STORAGE)"

test: $(INSTALLED) ## all tests but the slow ones, in two processes
	$(BIN)/python tests/in_halves.py $(ARGS)

test-slow: $(INSTALLED) ## the slow tests: kills, restarts, whole clusters
	$(BIN)/python -m pytest -m slow $(ARGS)

check: $(INSTALLED) ## style, types, and which room may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check-gpu: $(if $(PYTHON_GPU),,$(INSTALLED)) ## what needs a GPU, in minutes; one line where there is none (PYTHON_GPU=... instead of .venv)
	@$(or $(PYTHON_GPU),$(BIN)/python) tests/gpu/check.py

bench: $(INSTALLED) ## every benchmark, one after the other
	@set -e; for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(BIN)/python $$benchmark; done

clean: ## remove the environment and the caches; results stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
