# One short list of verbs for people, CI and the documentation. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# By uv where it is there, several times as fast; what it cannot do (it reads none of pip's settings), pip does.
UV := $(shell command -v uv 2>/dev/null)
installed = { $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python $(PIP_FLAGS) $(1) ||) $(PIP) $(PIP_FLAGS) $(1); }
PROTO := speculation/wire/v1/verification.proto
PROTOC_FLAGS = -I protos --python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) protos/$(PROTO)

BENCHMARKS := $(patsubst benchmarks/%.py,bench-%,$(shell grep -l '__main__' benchmarks/*.py))

.DEFAULT_GOAL := help
.PHONY: help demo page test check install protos fmt bench load pair lint types contracts fresh compose wire $(BENCHMARKS)

help: ## list these verbs
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.stamp-run ## make the environment, install, run the demo
	@$(BIN)/outrider demo $(ARGS)

page: $(VENV)/.stamp-run ## make the environment, install, serve both services and a page to try them (ARGS='--port 8081')
	@$(BIN)/outrider serve $(ARGS)

test: $(VENV)/.stamp-test ## install what the tests need, run them on all cores (ARGS='-n 0 -k NAME': some, in one process)
	@$(BIN)/python -c 'from speculation.compiled import use_compiled; use_compiled()'  # compiles once, not in every test process
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal $(ARGS)

check: lint types contracts fresh compose wire ## lint, types, import contracts, generated code, compose file, wire rules

install: $(VENV)/.stamp-dev ## everything a developer needs

protos: $(VENV)/.stamp-check ## generate the wire code again
	@$(BIN)/python -m grpc_tools.protoc $(call PROTOC_FLAGS,.)

fmt: $(VENV)/.stamp-check ## format, mend what the linter can, list the modules in ARCHITECTURE, draw the diagrams
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/python docs/modules.py
	@$(BIN)/python -m docs.diagrams

bench: $(BENCHMARKS) ## print every table that the documentation shows (ARGS=--quick: only see that it works)

$(BENCHMARKS): bench-%: $(VENV)/.stamp-run
	@echo "== $*"; began=$$(date +%s); $(BIN)/python -m benchmarks.$* $(ARGS) && echo "== $* took $$(($$(date +%s) - began)) s"

load: $(VENV)/.stamp-load ## start both services, put load on them, report (SCENARIO=NAME SECONDS=N USERS=N; see loadtest/README.md)
	@$(BIN)/python -m loadtest $(if $(SCENARIO),--scenario $(SCENARIO)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(USERS),--users $(USERS)) \
	  $(if $(REPORT),--report $(REPORT)) $(if $(AGENT),--agent $(AGENT)) $(if $(VERIFIER),--verifier $(VERIFIER)) \
	  $(if $(KEY_FILE),--key-file $(KEY_FILE)) $(if $(ABUSER_KEY_FILE),--abuser-key-file $(ABUSER_KEY_FILE))

pair: $(VENV)/.stamp-train ## train the bundled pair again (hours; see models/README.md)
	@$(BIN)/python -m models.recipes $(ARGS)

# The checks one by one.
lint: $(VENV)/.stamp-check
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "run: make fmt"; exit 1; }

types: $(VENV)/.stamp-check
	@$(BIN)/mypy

contracts: $(VENV)/.stamp-check
	@$(BIN)/lint-imports --no-cache

fresh: $(VENV)/.stamp-check
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(BIN)/python -m grpc_tools.protoc $(call PROTOC_FLAGS,"$$folder") \
	  && for file in $$(cd "$$folder" && find . -name 'verification_pb2*'); do \
	    cmp "$$folder/$$file" "$$file" || { echo "generated code is stale, run: make protos"; exit 1; }; done
	@echo "generated code is fresh"

compose: $(VENV)/.stamp-check
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

# The wire may only grow: compared with the newest release, or with the commit before where there is no release yet.
wire:
	@command -v buf >/dev/null || { echo "skipped: buf is not installed (npm install --global @bufbuild/buf)"; exit 0; }; \
	  buf lint protos && echo "buf lint: fine" || exit 1; \
	  base=$$(git describe --tags --abbrev=0 2>/dev/null || git rev-parse --verify --quiet HEAD~1); \
	  if [ -n "$$base" ] && git cat-file -e "$$base:protos/$(PROTO)" 2>/dev/null; \
	  then buf breaking protos --against ".git#ref=$$base,subdir=protos" && echo "buf breaking against $$base: fine"; \
	  else echo "skipped: buf breaking (no earlier version of the wire)"; fi

# The environment, and one stamp for each set of packages; a stamp is made again when pyproject.toml changes.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Python 3.11 or newer is needed, this is {v[0]}.{v[1]}; try: make PYTHON=python3.11 ...")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-run: pyproject.toml | $(BIN)/python
	@echo "installing (once, about a minute) ..." && $(call installed,--editable .) && touch $@

# For all verbs of a developer at once: one run of pip reads the index, resolves and builds, not one for each of them.
$(VENV)/.stamp-dev: pyproject.toml | $(BIN)/python
	@echo "installing what a developer needs (once, about a minute) ..." && $(call installed,--editable '.[dev]') \
	  && touch $(VENV)/.stamp-run $(VENV)/.stamp-test $(VENV)/.stamp-check $@

$(VENV)/.stamp-%: pyproject.toml | $(BIN)/python
	@echo "installing what 'make $*' needs ..." && $(call installed,--editable '.[$*]') && touch $@
