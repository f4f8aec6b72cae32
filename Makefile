# `make demo` and `make test` set up all they need: a virtual environment in .venv, made once.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# The tested versions; `make CONSTRAINTS= ...` takes the newest that pyproject.toml allows.
CONSTRAINTS ?= constraints.txt
DEMO ?= demo
SITE ?= site

.PHONY: help demo test test-slow test-lowest test-newest check format docs bench clean

help:
	@echo 'make demo       draw faces, extract, fit, compare; prints where the report is'
	@echo 'make test       the tests (FER2013_CSV=path adds those on real data)'
	@echo 'make test-slow  the tests and the long ones, and the tests with other dependencies:'
	@echo 'make test-lowest, make test-newest  the oldest and newest that pyproject.toml allows'
	@echo 'make check      ruff and mypy'
	@echo 'make format     let ruff format the code'
	@echo 'make docs       the documentation as a site, into site/'
	@echo 'make bench      the benchmarks, into benchmarks/RESULTS.md'
	@echo 'make clean      remove what these made'

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		$(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable '.[dev]'
	@touch $@

# Where ImageNet's weights cannot be downloaded the demo goes on with random ones, whose embeddings
# the dense head learns from only when they are standardized; its report says on top what that is
# worth. Any other failure ends it.
demo: $(VENV)/.installed
	@mkdir -p $(DEMO)
	$(BIN)/python -m fer_features.sample $(DEMO)/faces.csv
	@cd $(DEMO) && bin="$(abspath $(BIN))" && \
	if "$$bin"/fer-extract faces.csv -o cache/imagenet.h5; then \
		store=cache/imagenet.h5; fit=; compare=; \
	else \
		why=$$("$$bin"/fer-extract faces.csv -o cache/imagenet.h5 --quiet 2>&1); \
		case "$$why" in \
			*'ImageNet weights: cannot be downloaded'*) ;; \
			*) exit 2 ;; \
		esac; \
		echo 'Going on with seeded random weights.'; \
		store=cache/random.h5; fit=--standardize; compare='--grid dense.standardize=true'; \
		"$$bin"/fer-extract faces.csv -o $$store --weights random || exit; \
	fi && set -x && \
	"$$bin"/fer-fit-head $$store --per-class min $$fit && \
	"$$bin"/fer-compare $$store --per-class min $$compare
	@echo 'The reports: $(DEMO)/runs/*/report.html'

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow'

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile
	$(MAKE) test-lowest test-newest

# The oldest versions are for Python 3.11 and 3.12.
test-lowest:
	$(MAKE) test VENV=$(VENV)-lowest CONSTRAINTS=constraints-lowest.txt

test-newest:
	$(MAKE) test VENV=$(VENV)-newest CONSTRAINTS=

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict --site-dir $(SITE)
	@echo 'The site: $(SITE)/index.html; with its search: $(BIN)/python -m mkdocs serve'

# FER2013_CSV=path/to/fer2013.csv measures on real faces, else on drawn ones. Takes three quarters
# of an hour on two cores that do nothing else, a third of it the simulation.
bench: $(VENV)/.installed
	$(BIN)/python benchmarks/extraction.py $(FER2013_CSV)
	$(BIN)/python benchmarks/heads.py $(FER2013_CSV)
	$(BIN)/python benchmarks/calibration.py

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest $(DEMO) $(SITE)
