# Two commands on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
# Another source for torch, for example the address of PyTorch's CPU wheels.
TORCH_INDEX ?=
BIN := .venv/bin
export OMP_NUM_THREADS := 1

.PHONY: quickstart test slow check format clean

quickstart: .venv/ready
	$(BIN)/rolecraft quickstart

test: .venv/ready
	$(BIN)/python -m pytest -n 2

slow: .venv/ready
	$(BIN)/python -m pytest -m slow

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# trl alone, for the chat templates that its wheel carries: tests compare ours with them.
# torch first and alone: asked for by another package, its newest build would come, with several gigabytes of CUDA.
.venv/ready: constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install -c constraints.txt --no-deps trl
	touch $@

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
