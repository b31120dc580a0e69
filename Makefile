# `make` or `make help` lists what there is. Needs python3 >= 3.11, make and git.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
PORT ?= 8866
PYTEST_ARGS ?= -n 2 --dist loadfile
CHECK := .check

# What keeps two runs equal, and TensorFlow's start-up talk out of the outputs.
export PYTHONHASHSEED := 0
export TF_CPP_MIN_LOG_LEVEL := 3
export TF_DETERMINISTIC_OPS := 1
export JUPYTER_PREFER_ENV_PATH := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env reproduce test test-portable nbval images lab app lint format lock docs bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

env: $(STAMP) ## build .venv from requirements.lock (the others do it when needed)

$(STAMP): requirements.lock requirements-uv.txt pyproject.toml scripts/build_venv.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh scripts/build_venv.sh

reproduce: $(STAMP) images ## from nothing to the report (SOURCE=stellarium+everyday+archives)
	@$(BIN)/nebula run $(if $(SOURCE),-p SOURCE $(SOURCE))

images: $(STAMP) ## get the default images and weights into the cache
	@$(BIN)/nebula fetch stellarium > /dev/null
	@$(if $(findstring archives,$(SOURCE)),$(BIN)/nebula fetch archives > /dev/null)
	@$(BIN)/nebula backbone > /dev/null

test: $(STAMP) images ## run every test, the notebooks and the browser included
	@sh scripts/install_chromium.sh
	@status=0; $(MAKE) --no-print-directory nbval || status=$$?; \
	NEBULA_FRESH_REPORTS=$(CHECK)/reports \
	$(BIN)/python -m pytest tests $(PYTEST_ARGS) || status=$$?; exit $$status

test-portable: $(STAMP) images ## the same with other processors' kernels (hours)
	@$(BIN)/python tests/portable.py $(PORTABLE_ARGS)

nbval: $(STAMP) ## compare the committed notebooks' key tables with a fresh run
	@$(BIN)/python scripts/check_notebooks.py

lab: $(STAMP) ## open the notebooks in JupyterLab on 127.0.0.1
	@$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) \
	  --ServerApp.ip=127.0.0.1 --ServerApp.root_dir="$(CURDIR)" \
	  --ServerApp.tornado_settings="{'websocket_max_message_size': 104857600}" \
	  --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate \
	  --LabApp.app_settings_dir="$(CURDIR)/nebula_utils/classifier/static/lab" \
	  --LabApp.news_url=None --LabApp.default_url=/lab/tree/notebooks

app: $(STAMP) ## serve the classifier as a web page on 127.0.0.1 (PORT=8866)
	@$(BIN)/nebula app --port $(PORT)

lint: $(STAMP) ## check style, types, the order of rooms and docstrings
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/numpydoc lint $$(git ls-files 'nebula_utils/*.py')

format: $(STAMP) ## put the code into the house format
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

lock: $(STAMP) ## bring requirements.lock and environment.yml up to pyproject.toml
	@VENV="$(VENV)" sh scripts/uv.sh pip compile pyproject.toml --all-extras \
	  --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --custom-compile-command 'make lock' --quiet \
	  -o requirements.lock
	@$(BIN)/python scripts/write_environment.py

docs: $(STAMP) ## build the site offline in build/docs/html
	@$(BIN)/python scripts/build_docs.py

bench: $(STAMP) images ## measure speed against named baselines (BENCH_ARGS=--help)
	@$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

clean: ## remove .venv, executed notebooks and tool caches (not downloads)
	rm -rf $(VENV) $(CHECK) build *.egg-info reports/runs .pytest_cache .mypy_cache \
	  .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "downloads stay in \$$NEBULA_CACHE (default: your user cache folder, nebula/)"
