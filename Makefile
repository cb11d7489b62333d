# `make run` and `make test` need Python 3.11+, pip and make; the rest needs what they installed.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1
export PYTHONUNBUFFERED := 1
# A file stays in one process, which shares what its tests measure; files are taken in the order of tests/conftest.py.
PARALLEL := --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: run test test-fast faults verify reproduce notebooks site architecture bench constraints clean

# Trainings of the headline task that `make run` takes from what comes with the lab, so that it ends within three minutes.
LONG := trained_transformers few_prompts more_prompts longer_training classes

run: .venv/ready            ## headline task: figures and verdicts
	$(BIN)/lab run causallm-icl --again '*' $(LONG:%='!%')

test: .venv/ready           ## everything that CI runs: all claims judged, a share of them measured again
	$(BIN)/ruff check lab tasks proofs_check tests
	$(BIN)/ruff format --check lab tasks proofs_check tests
	$(BIN)/pytest $(PARALLEL)

test-fast: .venv/ready      ## the suite without measuring the claims again
	$(BIN)/pytest $(PARALLEL) -m "not claims"

faults: .venv/ready         ## kills, damaged files, mistakes, edits, other places: thousands of trials, a line a group
	$(BIN)/python -m tests.faults --kills 100 --damages 300 --command-lines 10000 --task-files 300

verify: .venv/ready         ## every shipped measurement taken again and compared with what ships (long; goes on if stopped)
	$(BIN)/pytest --verify --capture no tests/test_verdicts.py
	rm -rf build/verify

reproduce: .venv/ready      ## every task at ci: figures, notebooks, claims tables
	$(BIN)/lab reproduce
	$(BIN)/python -m tests.test_architecture
	$(BIN)/python -m lab.diagnosis.guide
	$(BIN)/python -m lab.own.tutorial

notebooks: .venv/ready      ## write the notebooks of the repository, from what ships
	$(BIN)/python -m lab.notebooks

site: .venv/ready           ## everything to browse, without server or network: build/site/index.html
	$(BIN)/lab site

architecture: .venv/ready   ## the page of rooms and what they may import, and that of the diagnosis
	$(BIN)/python -m tests.test_architecture
	$(BIN)/python -m lab.diagnosis.guide
	$(BIN)/python -m lab.own.tutorial

bench: .venv/ready          ## every speed claim as a ratio measured in one run
	$(BIN)/python -m lab.benchmarks

constraints: .venv/ready    ## pin the versions that the next set-up installs
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --extra dev --no-header --no-annotate --no-emit-index-url \
		--python-version 3.11 --output-file constraints.txt pyproject.toml

# A plain torch on Linux brings gigabytes of GPU libraries that nothing here needs; where the CPU build of the pinned
# version is offered, pip takes it. Modules are compiled when they are first imported: most never are.
.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv results build dist
