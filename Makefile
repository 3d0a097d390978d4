# Two commands on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
# Another source for torch, for example the address of PyTorch's CPU wheels.
TORCH_INDEX ?=
BIN := .venv/bin
# An interpreter that has litellm, smolagents, langchain-openai and pydantic-ai, for the tests of the server with other people's clients.
CLIENTS_PYTHON ?= $(CURDIR)/.venv-clients/bin/python
# An interpreter that has llama.cpp's server, for the tests of the remote engine.
LLAMA_PYTHON ?= $(CURDIR)/.venv-llama/bin/python
# An interpreter that has TRL with all that it asks for, for the tests and the benchmark of reinforcement beside it.
TRL_PYTHON ?= $(CURDIR)/.venv-trl/bin/python
export OMP_NUM_THREADS := 1
export CLIENTS_PYTHON LLAMA_PYTHON TRL_PYTHON

.PHONY: quickstart test slow check format clean

quickstart: .venv/ready
	$(BIN)/rolecraft quickstart

test: .venv/ready
	$(BIN)/python -m pytest -n 2

# Where the clients and servers cannot be had, for want of a network, their tests are skipped.
slow: .venv/ready
	-$(MAKE) .venv-clients/ready
	-$(MAKE) .venv-llama/ready
	-$(MAKE) .venv-trl/ready
	$(BIN)/python -m pytest -m slow

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# trl alone, for the chat templates that its wheel carries: tests compare ours with them. bfcl-eval alone, for its
# questions and its checker: what it asks for besides is 149 packages, and other versions of what we stand on.
# torch first and alone: asked for by another package, its newest build would come, with several gigabytes of CUDA.
.venv/ready: constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install -c constraints.txt --no-deps trl bfcl-eval
	touch $@

# Apart from .venv, since they ask for other versions of what we stand on.
.venv-clients/ready: Makefile
	$(PYTHON) -m venv .venv-clients
	.venv-clients/bin/python -m pip install litellm==1.110.2 'smolagents[openai]==1.26.0' \
		langchain-openai==1.7.4 'pydantic-ai-slim[openai]==2.68.0'
	touch $@

.venv-llama/ready: Makefile
	$(PYTHON) -m venv .venv-llama
	.venv-llama/bin/python -m pip install xllamacpp==2026.10.11549
	touch $@

# torch first and alone, as in .venv; jmespath is what its trainer asks for where there are tools.
.venv-trl/ready: constraints.txt Makefile
	$(PYTHON) -m venv .venv-trl
	.venv-trl/bin/python -m pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $$(grep '^torch==' constraints.txt)
	.venv-trl/bin/python -m pip install -c constraints.txt 'trl[peft]' jmespath
	touch $@

clean:
	rm -rf .venv .venv-clients .venv-llama .venv-trl build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
