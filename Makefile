# Everything here does its own set-up; `make demo` needs git, make and Python >= 3.11 only.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: setup setup-dev demo test bench test-cluster chaos-cluster test-gpu check unit chaos lock clean

setup: .venv/.run
setup-dev: .venv/.dev

.venv/bin/uv:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
	    -r requirements-uv.txt

.venv/.run: requirements.txt pyproject.toml requirements-uv.txt | .venv/bin/uv
	$(BIN)/uv pip sync --quiet --require-hashes --python $(BIN)/python \
	    $(if $(wildcard .venv/.dev),requirements-dev.txt,requirements.txt)
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python -e .
	touch $@

.venv/.dev: requirements-dev.txt pyproject.toml requirements-uv.txt | .venv/bin/uv
	$(BIN)/uv pip sync --quiet --require-hashes --python $(BIN)/python requirements-dev.txt
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python -e .
	touch $@ .venv/.run

demo: setup
	$(BIN)/descent demo $(ARGS)

check: setup-dev
	$(BIN)/ruff format $(if $(filter true,$(CI)),--check) .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest tests/unit $(ARGS)

unit: setup-dev
	$(BIN)/pytest tests/unit $(ARGS)

test: setup-dev
	$(MAKE) -k -j$(words $(PARTS)) --no-print-directory --output-sync=target $(PARTS:%=test-%)

# Seven processes for two cores, since the tests mostly wait; each clears up after itself, also after a Ctrl-C.
PARTS := guardian ray hub integration e2e survives github
tests-guardian := tests/integration/guardian
tests-ray := tests/integration/node tests/integration/ray
tests-hub := tests/integration/local_github tests/integration/github
tests-survives := tests/e2e/test_survives.py
tests-github := tests/e2e/test_github.py tests/e2e/test_run.py
tests-integration := tests/integration tests/cluster/test_hosts.py tests/cluster/test_cells.py $(patsubst %,--ignore %,$(tests-guardian) $(tests-ray) $(tests-hub))
tests-e2e := tests/e2e $(patsubst %,--ignore %,$(tests-survives) $(tests-github))
$(PARTS:%=test-%): test-%:
	$(BIN)/pytest $(tests-$*) $(ARGS)

# Three hosts as network namespaces, Ray on each, the real frameworks; needs root. CELLS=12 faults, drawn from SEED.
test-cluster: setup-dev
	$(BIN)/python -m tests.cluster.environments
	$(BIN)/pytest tests/cluster $(ARGS)
# Every fault on every topology in every state.
chaos-cluster: setup-dev
	$(BIN)/python -m tests.cluster.environments
	CELLS=all SEED=$(SEED) $(BIN)/pytest tests/cluster/test_faults.py $(ARGS)
# Where an NVIDIA GPU is at hand; skipped with the reason elsewhere.
test-gpu: setup-dev
	$(BIN)/pytest tests/gpu $(ARGS)

# How fast, beside a peer or a floor of the same run: make bench ARGS="queue intake". Its environment has Ray's jobs API.
bench: .bench/.run
	.bench/bin/python -m tests.bench $(ARGS)
.bench/.run: requirements-dev.txt pyproject.toml requirements-uv.txt | .venv/bin/uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .bench
	$(BIN)/uv pip sync --quiet --require-hashes --python .bench/bin/python requirements-dev.txt
	$(BIN)/uv pip install --quiet --python .bench/bin/python \
	    "ray[default]==$$(sed -n 's/^ray==\([0-9.]*\).*/\1/p' requirements.txt)"
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python .bench/bin/python -e .
	touch $@

# Kills at length, on SQLite and PostgreSQL, with GitHub's faults: make chaos N=20 SEED=7
N ?= 10
SEED ?= 1
chaos: setup-dev
	$(BIN)/python -m tests.chaos --rounds $(N) --seed $(SEED) $(ARGS)

# After changing the dependencies in pyproject.toml; the lock names hashes and no index.
lock:
	$(BIN)/uv lock --quiet --upgrade
	$(BIN)/uv export --quiet --format requirements-txt --no-emit-project --no-header --no-annotate \
	    --no-default-groups --extra postgresql -o requirements.txt
	$(BIN)/uv export --quiet --format requirements-txt --no-emit-project --no-header --no-annotate \
	    --all-groups --all-extras -o requirements-dev.txt
	awk '/^[a-z]/ {keep = /^uv==/} keep' requirements.txt > requirements-uv.txt

clean:
	rm -rf .venv .bench .mypy_cache .ruff_cache .pytest_cache
