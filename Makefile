# Everything a newcomer types. `make help` lists it.
.DEFAULT_GOAL := help
PYTHON ?= python3.11
BIN := .venv/bin
REQUIREMENTS := requirements.txt requirements-dev.txt requirements-convert.txt
# The stamp's name is the hash of what it stands for: changed pins install again, a touched file does not.
STAMP := .venv/installed-$(shell cat $(REQUIREMENTS) | sha256sum | cut -c1-16)
PIN := $(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --strip-extras
.PHONY: help demo test test-long test-long-stories test-long-rest lint bench pins agent

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): | .venv/bin/python
	$(BIN)/pip install --quiet --require-hashes -r requirements.txt -r requirements-dev.txt
	$(BIN)/pip install --quiet --no-deps --ignore-requires-python --require-hashes -r requirements-convert.txt
	rm -f .venv/installed-*
	touch $@

.venv/bin/python:
	$(PYTHON) -m venv .venv

agent: $(STAMP)
	$(BIN)/python -m devices.agent.build

demo: agent ## Start everything and watch a campaign: make demo ARGS="--headless --nodes 300 --json"
	$(BIN)/python -m demo $(ARGS)

# Groups in processes of their own, each with its own servers, three at a time and the longest first; with ARGS one process
# that runs what they name. The browser waits most of the time, so two cores have work for a third.
GROUP_builds := tests/integration/api tests/integration/updates --ignore=tests/integration/updates/campaigns
GROUP_campaigns := tests/integration/lorawan tests/integration/updates/campaigns
GROUP_browser := tests/browser
GROUP_screens := tests/integration/fleet tests/integration/frontend
GROUP_units := tests/unit
GROUP_rest := tests $(addprefix --ignore=,$(filter tests/%,$(GROUP_builds) $(GROUP_campaigns) $(GROUP_browser) $(GROUP_screens) $(GROUP_units)))
TEST_GROUPS := $(addprefix test-,builds campaigns browser screens units rest)
test: agent ## Run the tests (under 10 minutes): make test [ARGS="tests/unit -k name"]
ifdef ARGS
	$(BIN)/pytest -m "not long" $(ARGS)
else
	$(MAKE) --no-print-directory --jobs=3 --keep-going $(TEST_GROUPS)
endif

.PHONY: $(TEST_GROUPS)
$(TEST_GROUPS): test-%:
	$(BIN)/pytest -m "not long" $(GROUP_$*)

# The stories wait for nodes most of the time, the rest computes.
LONG_STORIES := tests/long/test_loss_costs_frames_and_hours.py tests/long/test_killing_everything.py
test-long: agent ## Run fuzzing, kill storms and scale (under 25 minutes): make test-long [ARGS="tests/long/..."]
ifdef ARGS
	$(BIN)/pytest -m long $(ARGS)
else
	$(MAKE) --no-print-directory --jobs=2 test-long-stories test-long-rest
endif

test-long-stories:
	$(BIN)/pytest -m long $(LONG_STORIES)

test-long-rest:
	$(BIN)/pytest -m long $(LONG_STORIES:%=--ignore=%)

lint: agent ## Check style, types, import rules, migrations and the OpenAPI snapshot
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m fleet.embedded run -- $(BIN)/mypy fleet devices updates frontend demo
	$(BIN)/lint-imports
	$(BIN)/python -m fleet.embedded run -- $(BIN)/python manage.py makemigrations --check --dry-run
	$(BIN)/python -m fleet.embedded run -- $(BIN)/python manage.py openapi --check
	$(BIN)/python -m fleet.embedded run -- $(BIN)/python manage.py state_machines --check

bench: agent ## Run one benchmark: make bench NAME=campaigns [N=100000] [MODELS=dir] [JSON=out.json]
	$(BIN)/python -m fleet.embedded run -- $(BIN)/python -m tests.benchmarks $(NAME) $(if $(N),--n $(N)) $(if $(MODELS),--models $(MODELS)) $(if $(JSON),--json $(JSON))

pins: $(STAMP) ## Compile requirements*.in into hashed pins
	$(PIN) --allow-unsafe --output-file=requirements.txt requirements.in
	$(PIN) --allow-unsafe --output-file=requirements-dev.txt requirements-dev.in
	$(PIN) --output-file=requirements-bench.txt requirements-bench.in
