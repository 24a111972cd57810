# Everything a person or CI does here is a target; CONTRIBUTING.md says when to use which.
# Needs Python 3.11+ and make. Stamps under .venv/ and build/ remember what is installed, so that a second run starts at once.

PYTHON ?= python3
# Test workers: one per core, at most 8. `make test WORKERS=0` runs them in one process, where a debugger works.
WORKERS ?= logical
# More for pytest, for example ARGS="-k rotate -x".
ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 8 --dist worksteal
LOCK := build/lock/bin/uv pip compile --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --quiet
# --quiet would keep warnings from being counted, and so --strict from refusing them.
SITE := NO_MKDOCS_2_WARNING=1 build/site/bin/mkdocs build
IMAGE_BUILD ?= docker build
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
DESCRIPTORS := clients/python/artstore/identity/v1/descriptors.binpb

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run test interop test-fast fuzz drill bench bench-quick bench-growth bench-scaling footprint bench-trust lint docs site boards audit sbom proto proto-release lock secrets image image-local image-wheels clean

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: .venv/.dev build/googleapis/.copied ## install server and client, editable, with everything for tests and lint, into .venv

run: .venv/.run ## start the service on the embedded default: data in ./var, nothing else needed
	$(BIN)/artstore-grpc serve

test: setup build/charts/.installed ## run every test, those against a real PostgreSQL and a real Redis included
	$(PYTEST) -m "not fuzz and not drill" $(ARGS)

interop: setup ## run clients in JavaScript, Go and TypeScript against the service; needs node, npm and go
	$(BIN)/python -m tests.interop.run

test-fast: setup ## run the tests not marked slow
	$(PYTEST) -m "not slow and not fuzz and not drill" $(ARGS)

fuzz: setup ## run the long form of the fuzz and property tests; half an hour
	$(PYTEST) -m fuzz $(ARGS)

drill: setup ## attack a running service, and measure what its rightful clients notice; a few minutes, on a quiet machine
	$(BIN)/python -m pytest -m drill -s $(ARGS)

bench: .venv/.bench ## measure cost, throughput and latency against the floor, into build/bench; about 8 minutes
	$(BIN)/python -m benchmarks table

bench-quick: setup ## the same with fewer rows and rounds; about a minute
	$(BIN)/python -m benchmarks table --quick

bench-growth: .venv/.bench ## measure a token's cost against accounts, ledger rows, connections; memory; half an hour
	$(BIN)/python -m benchmarks grow

bench-scaling: .venv/.bench ## measure a token's cost with 1, 2 and 4 workers, and what they take at rest; ARGS=--keep puts it into docs/scaling.md
	$(BIN)/python -m benchmarks scale $(ARGS)

footprint: setup ## measure a service's idle memory, and the seconds from its start to its first token
	$(BIN)/python -m benchmarks.footprint

bench-trust: setup ## measure how soon what one process does is known to all, and to verifiers; about 6 minutes
	$(BIN)/python -m benchmarks.trust

lint: setup build/site/.installed build/prometheus/.checked build/charts/.installed ## check style, types, protos, image, compose files and chart; build the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint protos
	$(BIN)/buf format protos --diff --exit-code
	$(BIN)/buf breaking protos --against protos/released.binpb
	$(BIN)/hadolint Dockerfile
	$(BIN)/docker-compose --file docker-compose.yml config --quiet
	IDENTITY_NETWORK=others IDENTITY_NETWORK_EXTERNAL=true $(BIN)/docker-compose --file docker-compose.yml config --quiet
	$(BIN)/docker-compose --file docker-compose.dev.yml config --quiet
	build/charts/bin/python deploy/helm/check.py
	$(SITE)
	$(BIN)/python docs/check_site.py

docs: setup ## write the pages of docs/ that are made from the code: settings, commands, API, errors, indexes
	$(BIN)/python docs/generate.py $(ARGS)

site: build/site/.installed ## build the documentation into build/site-html; SITE_SOURCE=URL: where links to other files lead
	$(SITE)
	@echo "Open build/site-html/index.html"

boards: .venv/.bench ## run a few minutes of calls and outages, and draw the dashboards into docs/dashboards; needs a prometheus
	$(BIN)/python -m tests.deploy.show

audit: build/audit/.installed ## report known vulnerabilities of what is pinned; asks the network, and gates nothing
	-build/audit/bin/pip-audit --require-hashes --disable-pip --requirement requirements/run.txt

sbom: build/audit/.installed ## write build/sbom.json (CycloneDX): everything that the server runs on
	build/audit/bin/cyclonedx-py requirements requirements/run.txt --pyproject pyproject.toml --mc-type application \
		--output-reproducible --output-format JSON --output-file build/sbom.json

proto: build/proto/.installed ## regenerate the stubs and descriptors in clients/python from protos/
	build/proto/bin/python protos/generate.py --image $(DESCRIPTORS)

proto-release: setup ## declare the protos released: `make lint` refuses what breaks them from then on
	$(BIN)/buf build protos --exclude-source-info --output protos/released.binpb

lock: build/lock/.installed ## pin requirements/*.txt anew: what is pinned stays, unless ARGS="--upgrade" or "-P NAME"
	$(LOCK) $(ARGS) --no-emit-package artstore-identity pyproject.toml --output-file requirements/run.txt
	cd requirements && for name in build dev bench proto audit charts docs tools; do ../$(LOCK) $(ARGS) $$name.in --output-file $$name.txt || exit 1; done

secrets: ## make the random secrets that docker-compose.yml reads, in ./secrets
	@$(PYTHON) deploy/compose_secrets.py

image: ## build the image with Docker; IMAGE_BUILD="podman build" or "buildah build" for others
	$(IMAGE_BUILD) --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) \
		--build-arg SOURCE="$$(git remote get-url origin 2>/dev/null)" --tag artstore-grpc:$(VERSION) .

image-local: ## build the image by Buildah on a base made from Debian's packages, run it, measure it; needs root
	deploy/image/build_locally.sh
	deploy/image/check.sh build/image artstore-grpc:$(VERSION)

image-wheels: setup ## ask PyPI whether every pin of the image is a wheel on both architectures
	deploy/image/wheels.sh $(BIN)/python build/wheels

clean: ## remove what make has made; your data in ./var and ./secrets stays
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov

# Only when they have changed: promtool computes days of them.
build/prometheus/.checked: $(wildcard deploy/prometheus/*)
	@mkdir -p $(@D)
	deploy/prometheus/check.sh
	@touch $@

# --- what is installed where ---

.venv/.made build/proto/.made build/lock/.made build/audit/.made build/charts/.made build/site/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "This needs Python 3.11 or newer: name one with make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(@D)
	@touch $@

.venv/.run: .venv/.made requirements/build.txt requirements/run.txt pyproject.toml clients/python/pyproject.toml
	@echo "Installing the pinned dependencies into .venv; this is needed once."
	$(PIP) --require-hashes -r requirements/build.txt -r requirements/run.txt
	$(PIP) --no-deps --no-build-isolation -e clients/python -e .
	@touch $@

.venv/.dev: .venv/.run requirements/dev.txt
	@echo "Installing what the tests and linters need into .venv; this is needed once."
	$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

.venv/.bench: .venv/.dev requirements/bench.txt
	@echo "Installing what draws the plots into .venv; this is needed once."
	$(PIP) --require-hashes -r requirements/bench.txt
	@touch $@

# The generator wants an older protobuf than the server runs on, so it lives apart.
build/proto/.installed: build/proto/.made requirements/proto.txt
	build/proto/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/proto.txt
	@touch $@

build/googleapis/.copied: build/proto/.installed protos/generate.py
	build/proto/bin/python protos/generate.py --vendor $(@D)
	@touch $@

build/audit/.installed: build/audit/.made requirements/audit.txt
	build/audit/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/audit.txt
	@touch $@

build/lock/.installed: build/lock/.made requirements/tools.txt
	build/lock/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/tools.txt
	@touch $@

build/charts/.installed: build/charts/.made requirements/charts.txt
	build/charts/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/charts.txt
	@touch $@

build/site/.installed: build/site/.made requirements/docs.txt
	build/site/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/docs.txt
	@touch $@
