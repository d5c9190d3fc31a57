# `make help` lists what there is. VENV=DIR names the environment, PYTHON=EXE what to make it with.
# LADDER='--seeds 0 1 --jobs 2' hands options to the ladder.
SHELL := /bin/bash
VENV ?= $(CURDIR)/.venv
JOBS ?= 2
export PYTHONPATH := $(CURDIR)
python := $(VENV)/bin/python
shell_files := run.sh $(wildcard bin/*.sh tests/*/*.sh) .ci/run

.DEFAULT_GOAL := help
.PHONY: help setup setup-eval demo test test-quick lint gpu bench bench-rivals bench-sizing bench-song faults fuzz \
  test-slurm ladder transfer clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

setup: ## make the Python environment, or bring it up to date, with what tests and lint need
	@bin/setup_env.sh --dev > /dev/null

setup-eval: setup ## PSDS and reference readers of annotation formats (needs a C compiler)
	@"$(python)" -m pip install --quiet --requirement requirements-eval.txt

demo: ## all stages of the demo: a made-up competition from sounds to report
	@./run.sh

test: lint ## lint, then all tests (JOBS=N at once)
	OMP_NUM_THREADS=1 "$(python)" -m pytest -n $(JOBS) --dist loadfile

test-quick: setup ## tests of every wing that take no more than moments, for daily work
	OMP_NUM_THREADS=1 "$(python)" -m pytest -n $(JOBS) --dist loadfile -m "not slow"

lint: setup ## ruff (rules and layout), mypy (types) and shellcheck
	"$(python)" -m ruff check .
	"$(python)" -m ruff format --check .
	"$(python)" -m mypy
	"$(VENV)/bin/shellcheck" $(shell_files)

gpu: ## what runs on a CUDA device, on a machine that has one, GPU='--quick'
	@bash tests/gpu/run.sh $(GPU)

bench: setup ## speed and memory, as ratios measured in this run
	@set -e; for script in $(filter-out %/rivals.py %/sizing.py %/song.py,$(wildcard tests/bench/*.py)); do echo "== $$script"; "$(python)" "$$script"; done

bench-rivals: setup ## detection against OpenSoundscape, which gets an environment of its own
	@"$(python)" tests/bench/rivals.py --environment "$(VENV)-rivals" $(RIVALS)

bench-sizing: setup ## rates to plan a cluster by, SIZING='--device cuda'
	@"$(python)" tests/bench/sizing.py $(SIZING)

bench-song: setup ## recipe mine with no setting on made-up song, SONG='--only syllables'
	@"$(python)" tests/bench/song.py $(SONG)

faults: setup ## kills, full disks, second runs at every stage, FAULTS='--quick' for daily work
	@OMP_NUM_THREADS=1 "$(python)" -m tests.faults.harness --jobs $(JOBS) $(FAULTS)

test-slurm: setup ## the demo on a real Slurm of this machine, SLURM_TESTS='--only scancel'
	@VENV="$(VENV)" "$(python)" -m tests.slurm.run $(SLURM_TESTS)

fuzz: setup ## random damage to good inputs against every reader, FUZZ='--seconds 600 --seed 1'
	@OMP_NUM_THREADS=1 "$(python)" -m tests.fuzz.fuzz $(FUZZ)

ladder: setup ## the climb from positives only to the default, measured (an hour or more)
	@VENV="$(VENV)" "$(python)" -m recipes.rfcx.ladder $(LADDER)

transfer: setup ## rules for deciding on many small competitions, TRANSFER='--sounds DIR --seeds 0 1' (hours)
	@VENV="$(VENV)" "$(python)" -m recipes.rfcx.transfer $(TRANSFER)

clean: ## remove caches (not the environment, and nothing that a run wrote)
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
