# demo · test · check · bench · docs: the only vocabulary; people, hooks and CI all use it.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 3
RUN := OMP_WAIT_POLICY=passive $(BIN)
.DEFAULT_GOAL := help
.PHONY: help demo test check bench docs lock olist skill pictures

help:  ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 10

demo: .venv/ready  ## a synthetic supply chain, trained, tracked and published in ./demo
	@$(RUN)/bullwhip demo --workspace demo

test: .venv/ready .venv/servers  ## every test
	@$(RUN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: .venv/ready  ## style, types, import law, generated docs
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-cache && $(BIN)/python -m docs.generate --check

docs: .venv/ready  ## write data.md, features.md, risk.md and contracts/ in docs anew
	@$(BIN)/python -m docs.generate

bench: .venv/peers  ## speed next to peers, see benchmarks/RESULTS.md: make bench [SCALE=0.1] [ONLY="panels orders"]
	@$(RUN)/python -m benchmarks --scale $(or $(SCALE),1) $(if $(ONLY),--only $(ONLY))

pictures: .venv/servers  ## the README's pictures of the board, from ./demo
	@$(BIN)/python -m docs.pictures --workspace demo

skill: .venv/ready  ## what the forecasts are worth, see benchmarks/SKILL.md: make skill DATA=folder
	@$(RUN)/python -m benchmarks.skill --data "$(or $(DATA),../shared/data)" --write

olist: .venv/ready  ## the same commands on a public marketplace data set: make olist DATA=folder
	@$(RUN)/python examples/olist/run.py --data "$(DATA)" --workspace olist

lock: .venv/ready  ## choose versions anew
	@$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q -o requirements.lock

# LightGBM needs the OpenMP runtime, which slim images leave out; a venv needs ensurepip, which Debian ships apart.
.venv/ready: requirements.lock pyproject.toml
	@ldconfig -p 2>/dev/null | grep -q libgomp.so.1 || [ "$$(uname)" != Linux ] || \
	  { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq libgomp1; } || \
	  echo "bullwhip: LightGBM needs libgomp.so.1; please install libgomp1 (Debian, Ubuntu) or libgomp (Fedora)" >&2
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bullwhip: python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another with make PYTHON=python3.12")'
	@$(PYTHON) -m venv --clear .venv 2>/dev/null || { $(PYTHON) -m pip install -q --target .venv/boot virtualenv && PYTHONPATH=.venv/boot $(PYTHON) -m virtualenv -q .venv; }
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv
	@$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

# Peers are installed beside what is locked, never instead of it.
.venv/peers: .venv/ready
	@$(BIN)/uv pip install -q --python $(BIN)/python --group bench --constraint requirements.lock
	@touch $@

# A browser and a PostgreSQL server for the tests that need one: installed where we may; elsewhere these tests skip and say why.
.venv/servers: .venv/ready
	@{ { command -v chromium && { command -v initdb || ls /usr/lib/postgresql/*/bin/initdb; }; } >/dev/null 2>&1; } || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium postgresql >/dev/null; } || \
	  echo "bullwhip: without chromium and postgresql the tests that need them skip" >&2
	@touch $@
