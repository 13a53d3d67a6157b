# make demo    sets up .venv and runs the demo: no ROS, no GPU, no compiler
# make test    sets up .venv and runs all checks and tests
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
OUT ?= out/demo
PYTEST_ARGS ?=
JOBS ?= 2
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
MESSAGES := $(VENV)/.messages
# test files side by side, each with one thread
PYTEST := OMP_NUM_THREADS=1 "$(BIN)/python" -m pytest --numprocesses $(JOBS) --dist loadfile

.PHONY: help setup demo test test-batch quicktest golden train-smoke docs lint typecheck format messages clean

help:
	@echo "make demo       simulate a camera flight, replay it, write a report to $(OUT)"
	@echo "make test       lint, type check, all tests (ROS transport included where it can be built), and a run of the wheel"
	@echo "make test-batch  densematch batch on Ray (installs it): lost workers, damaged and endless recordings"
	@echo "make quicktest  the tests without those marked slow"
	@echo "make golden     every golden array compared (minutes); the folder: DENSEMATCH_GOLDEN, default ../shared/golden"
	@echo "make train-smoke   every training recipe on generated data (minutes): its loss falls, its weights load"
	@echo "make docs       the documentation as a site, out/docs/index.html"
	@echo "make lint | typecheck | format"
	@echo "make messages   ROS 2 messages in $(VENV) from the rclpy wheels (x86-64 Linux; needs cmake and a C compiler)"
	@echo "make clean      remove $(VENV) and build folders; variables: PYTHON, VENV, CONSTRAINTS, OUT, JOBS, PYTEST_ARGS"

setup: $(INSTALLED)

# One pip call with the constraints, so that nothing installed first can be replaced by something installed later.
$(INSTALLED): pyproject.toml setup.py $(CONSTRAINTS)
	@sh scripts/check_python.sh "$(PYTHON)"
	"$(PYTHON)" -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --quiet -c "$(CONSTRAINTS)" -e ".[dev]"
	@touch "$@"

demo: $(INSTALLED)
	"$(BIN)/densematch" demo --out "$(OUT)"

test: lint typecheck $(MESSAGES)
	$(PYTEST) $(PYTEST_ARGS)

quicktest: $(INSTALLED)
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

# Ray is an extra of its own and large: only this target installs it.
test-batch: $(INSTALLED)
	@sh scripts/install_ray.sh "$(BIN)/python" "$(CONSTRAINTS)"
	OMP_NUM_THREADS=1 "$(BIN)/python" -m pytest test/batch

golden: $(INSTALLED)
	DENSEMATCH_GOLDEN_COMPLETE=1 "$(BIN)/python" -m pytest test/golden $(PYTEST_ARGS)

train-smoke: $(INSTALLED)
	OMP_NUM_THREADS=1 "$(BIN)/python" test/training/smoke.py config/training/*.yaml

docs: $(INSTALLED)
	"$(BIN)/python" -m pip install --quiet -c "$(CONSTRAINTS)" -e ".[docs]"
	"$(BIN)/python" -m sphinx -W --keep-going -q docs out/docs

lint: $(INSTALLED)
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .

typecheck: $(INSTALLED)
	"$(BIN)/mypy"

format: $(INSTALLED)
	"$(BIN)/ruff" check --fix .
	"$(BIN)/ruff" format .

messages: $(INSTALLED)
	sh scripts/build_messages.sh "$(VENV)"

# For the tests in test/ros. Where the machine cannot build the messages, the script says why in one line, leaves no mark,
# and those tests are skipped by name.
$(MESSAGES): $(INSTALLED) $(wildcard msg/*.msg srv/*.srv) CMakeLists.txt package.xml scripts/build_messages.sh
	@sh scripts/build_messages.sh --optional "$(VENV)"

clean:
	rm -rf "$(VENV)" build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
