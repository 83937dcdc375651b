# Everything runs in .venv, with the versions in constraints.txt. Another Python: make PYTHON=... <target>
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint docs wheel sanitize format benchmark clean FORCE

export PIP_DISABLE_PIP_VERSION_CHECK := 1
BIN := .venv/bin
CORE := bayesgmm/_core.so
INSTALL := $(BIN)/python -m pip install -qq --no-input -c constraints.txt

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.package $(CORE)  ## run the demonstration
	@$(BIN)/bayesgmm demo

test: lint  ## check style, types and behaviour
	@COVERAGE_CORE=sysmon $(BIN)/pytest -n auto --dist loadfile --cov=bayesgmm --cov-report=term:skip-covered

lint: .venv/.test $(CORE)  ## check style and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

docs: .venv/.docs $(CORE)  ## build the documentation's site into build/docs
	@PATH="$(CURDIR)/$(BIN):$$PATH" sphinx-build -W --keep-going -q -j auto $(SPHINXOPTS) -d build/doctrees docs build/docs

wheel: .venv/.test $(CORE)  ## build wheel and sdist, and try them away from this checkout
	@tools/try-wheel

sanitize: .venv/.test  ## look for memory errors and undefined behaviour in compiled code
	@tools/sanitize

format: .venv/.test  ## fix what can be fixed by rule
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

benchmark: .venv/.benchmark $(CORE)  ## time the package
	@for script in $(wildcard benchmarks/[!_]*.py); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:  ## remove everything made here, .venv too
	@rm -rf .venv build dist docs/generated $(CORE) *.egg-info .pytest_cache .mypy_cache .ruff_cache bayesgmm-demo
	@find . -name .git -prune -o -name __pycache__ -prune -exec rm -rf {} +

# A stamp is written only once its install has succeeded, so whatever was cut short is made anew;
# so is a .venv whose Python has since gone.
.venv/.package: pyproject.toml constraints.txt $(if $(shell $(BIN)/python -c 'print(1)' 2>/dev/null),,FORCE)
	@python=$$(tools/find-python) && echo "Making .venv with $$("$$python" -V); this takes a minute ..." && \
	rm -rf .venv && "$$python" -m venv .venv && $(INSTALL) -e . && touch $@

# While an extra goes in, the package's stamp is held back: a failure here may have spoilt the whole.
.venv/.test .venv/.docs .venv/.benchmark: .venv/.%: .venv/.package
	@echo "Adding the $* tools to .venv ..."
	@mv $< $<.held && $(INSTALL) -e ".[$*]" && mv $<.held $< && touch $@

# Installing the package compiles the core; this does so again once its sources have changed.
$(CORE): setup.py $(wildcard src/*) | .venv/.package
	@if [ ! -e $@ ] || [ -n "$$(find $^ -newer $@)" ]; then \
	echo "Compiling the core ..." && $(INSTALL) --no-deps -e .; fi
