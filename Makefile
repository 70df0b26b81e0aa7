# Two commands need nothing but python3, make and the package registries: make serve, make test.
PORT ?= 3000
BIN := .venv/bin
LOCK := --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --quiet

.PHONY: serve test test-backbones gate install dev lint lock clean container-check sbom audit

serve: install
	PORT=$(PORT) $(BIN)/petalpaw serve

test: dev
	$(BIN)/python -m pytest

# Every backbone, trained for a step, exported and compared: an hour, and 15 GB of memory for the largest.
test-backbones: dev
	$(BIN)/python -m pytest -m slow

install: .venv/.serve
dev: .venv/.dev

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock:
	uv=$$(requirements/uv.sh) && \
	$$uv pip compile pyproject.toml requirements/build.in --all-extras $(LOCK) -o requirements/dev.txt && \
	$$uv pip compile pyproject.toml requirements/build.in $(LOCK) -c requirements/dev.txt -o requirements/serve.txt && \
	$$uv pip compile pyproject.toml requirements/build.in --extra cuda $(LOCK) -c requirements/dev.txt -o requirements/cuda.txt && \
	$$uv pip compile pyproject.toml requirements/cluster.in --extra cluster --extra remote --extra tables $(LOCK) -c requirements/dev.txt -o requirements/cluster.txt && \
	for peer in gcs grafana kserve mlserver moto traefik; do $$uv pip compile tests/peers/$$peer.in $(LOCK) -o tests/peers/$$peer.txt || exit; done

# Does a request cost more than it did? Needs wrk, and a machine with nothing else to do.
gate: dev
	$(BIN)/python benchmarks/gate.py

# Builds the image and holds it to docs/operations.md; needs a Docker engine.
container-check: dev
	deploy/container-check.sh

# What the image carries: build/sbom.json (CycloneDX) and the licences, from the lock alone.
sbom: dev
	mkdir -p build
	uv=$$(requirements/uv.sh) && $$uv venv --quiet --clear --python $(BIN)/python build/serve && \
	$$uv pip install --quiet --python build/serve/bin/python --require-hashes -r requirements/serve.txt
	$(BIN)/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml -o build/sbom.json build/serve/bin/python
	$(BIN)/python requirements/licences.py build/sbom.json > requirements/licences.md

# Known vulnerabilities of what is locked; asks the advisory service of PyPI.
audit: dev
	$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements/serve.txt

clean:
	rm -rf .venv .tools build dist *.egg-info

# $(1): the lock to install. The project itself is installed in place, with the locked setuptools.
define installed
	uv=$$(requirements/uv.sh) && \
	{ [ -x $(BIN)/python ] || $$uv venv --quiet --python '>=3.11' .venv; } && \
	$$uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements/$(1) && \
	$$uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@
endef

.venv/.serve: requirements/serve.txt pyproject.toml
	$(call installed,serve.txt)

.venv/.dev: requirements/dev.txt pyproject.toml
	$(call installed,dev.txt)
	@touch .venv/.serve
