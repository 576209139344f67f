# make run: everything, from an empty folder to the table in README.md.
# make run EXPERIMENT=name: the same of experiments/name.yaml, as `minillm-lab new` writes it.
# make run RUNTIMES="openvino torchao": the same, with runtimes that a plain run never installs.
# make install: what that needs, and nothing is run.
# make report: the same, and report.html: tables, figures, answers in one file, without network.
# make test: formatters, lint, types, tests.
# make audit: fails where a dependency has a known advisory; asks a service, so not in CI.
# make cluster: what `snakemake --profile workflow/profiles/slurm` needs besides.

PYTHON ?= python3
BIN = .venv/bin
ARGS ?=
EXPERIMENT ?=
RUNTIMES ?=
CONFIG = $(if $(EXPERIMENT),--configfile experiments/$(EXPERIMENT).yaml)
# llama.cpp without what the lab never loads: images and sound, and what its own programs share.
# What CMAKE_ARGS says comes after these and wins. Ninja compiles on every core; make would on one.
LEAN = -DLLAVA_BUILD=OFF -DLLAMA_BUILD_COMMON=OFF \
	-DCMAKE_PROJECT_llama_cpp_INCLUDE='$(CURDIR)/envs/llama.cpp.cmake'

.PHONY: run install report test lock audit cluster
.DELETE_ON_ERROR:

run: install
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --cores 1 $(CONFIG) $(ARGS)

install: .venv/installed $(RUNTIMES:%=.venv/installed-%)

report: run
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --report report.html $(CONFIG) $(ARGS)

test: .venv/installed-test .venv/installed-bitsandbytes .venv/installed-mlx .venv/installed-torchao
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/snakefmt --check workflow Snakefile
	$(BIN)/mypy
	$(BIN)/snakemake --lint
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(ARGS)

cluster: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--requirement envs/lock-slurm.txt

.venv/installed: envs/lock.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv
	@echo "Installing into .venv; llama.cpp is compiled for this CPU, which takes minutes, once."
	SKBUILD_NINJA_MAKE_FALLBACK=no CMAKE_ARGS="$(LEAN) $$CMAKE_ARGS" \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement envs/lock.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# The Slurm executor lies apart, where only its own tests see it: Snakemake imports what it finds.
.venv/installed-test: envs/lock-test.txt envs/lock-slurm.txt .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement envs/lock-test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--upgrade --target .venv/cluster --requirement envs/lock-slurm.txt
	@touch $@

# Runtimes that a variant may name besides, each by its own list of what it adds.
.venv/installed-%: envs/lock-%.txt .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	@touch $@

# Resolve the pins of pyproject.toml anew, in an environment of its own.
lock:
	$(PYTHON) envs/lock.py

audit: .venv-audit/installed
	.venv-audit/bin/pip-audit $(patsubst %,--requirement %,$(wildcard envs/lock*.txt)) \
		--no-deps --disable-pip --strict

.venv-audit/installed: pyproject.toml
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check \
		"$$(sed -n 's/^audit = \["\(.*\)"\]$$/\1/p' pyproject.toml)"
	@touch $@
