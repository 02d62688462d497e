# All targets run in .venv, which is built if it is missing, was moved, or is older than setup.py,
# constraints.txt and pyproject.toml. `make PYTHON=/path/to/python3.13 ...` selects the python.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test test-all test-pythons cluster-test fuzz lint docs pictures dist bench bench-cluster bench-fer clean moved

VENV_PYTHON := .venv/bin/python
STAMP := .venv/.complete
# Two tests at a time: half of the time most of them wait for a JVM or another process.
PARALLEL := --numprocesses 2

# The recipes do not see the caller's settings of python, pip, Spark, Hadoop and TensorFlow. They do
# see JAVA_HOME, which selects a Java.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONSAFEPATH PYTHONOPTIMIZE PYTHONWARNINGS
unexport VIRTUAL_ENV
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PIP_CONSTRAINT PIP_REQUIREMENT PIP_NO_DEPS PIP_DRY_RUN
unexport SPARK_HOME SPARK_CONF_DIR SPARK_DRIVER_MEMORY SPARK_LOCAL_IP SPARK_MASTER MASTER
unexport PYSPARK_PYTHON PYSPARK_DRIVER_PYTHON PYSPARK_DRIVER_PYTHON_OPTS PYSPARK_SUBMIT_ARGS
unexport HADOOP_HOME HADOOP_CONF_DIR YARN_CONF_DIR TF_CONFIG KERAS_BACKEND KERAS_HOME
export PIP_USER := 0
export PYTHONNOUSERSITE := 1

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

venv: $(STAMP) ## build only the environment

demo: $(STAMP) ## preprocess, train, score and evaluate synthetic faces, or FER2013=/path/to/fer2013.csv
	@scripts/demo $(if $(FER2013),"$(FER2013)")

test: $(STAMP) ## run all tests except the slow ones; ARGS="-k java" passes options to pytest
	@$(VENV_PYTHON) -m pytest $(PARALLEL) --dist loadfile --no-loadscope-reorder tests $(ARGS)

test-all: $(STAMP) ## run the slow tests as well: the commands of README.md and of the tutorials
	@$(VENV_PYTHON) -m pytest $(PARALLEL) --dist loadfile --no-loadscope-reorder tests --slow $(ARGS)

test-pythons: $(STAMP) ## run the unit tests and those of the input pipeline on the oldest and newest Python
	@scripts/test-pythons

cluster-test: $(STAMP) ## kill processes of a Spark cluster, with synthetic faces or FER2013=/path/to/fer2013.csv
	@$(VENV_PYTHON) -m pytest $(PARALLEL) --dist loadscope --no-loadscope-reorder tests/e2e/test_cluster.py --cluster --slow $(if $(FER2013),--fer2013="$(FER2013)") $(ARGS)

fuzz: $(STAMP) ## read 10,000 damaged images and 10,000 damaged CSV files
	@$(VENV_PYTHON) -m pytest $(PARALLEL) --dist load tests/data/test_fuzzing.py --fuzz 10000 --timeout 1800 $(ARGS)

lint: $(STAMP) ## check style, vocabulary, types and the imports between the packages
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m mypy
	@$(VENV_PYTHON) scripts/check_vocabulary.py fer_pipeline jobs benchmarks scripts tests
	@.venv/bin/lint-imports --no-logo

# The theme would print an advertisement of its successor.
docs: $(STAMP) ## build the documentation into site/; a warning is an error
	@NO_MKDOCS_2_WARNING=1 $(VENV_PYTHON) -m mkdocs build --quiet --strict
	@echo "site/index.html (to search in it: $(VENV_PYTHON) -m http.server --directory site)"

pictures: $(STAMP) ## draw the pictures of README.md and of the site, after make demo
	@$(VENV_PYTHON) scripts/draw_pictures.py
	@$(VENV_PYTHON) scripts/draw_architecture.py
	@$(VENV_PYTHON) scripts/draw_preprocess.py

dist: $(STAMP) ## build a wheel, and archives of its environment for the executors of a cluster
	@scripts/dist

bench: $(STAMP) ## run the benchmarks, with synthetic faces or FER2013=/path/to/fer2013.csv
	@$(VENV_PYTHON) -m benchmarks

bench-cluster: $(STAMP) ## measure jobs on a standalone cluster, with synthetic faces or FER2013=/path/to/fer2013.csv
	@$(VENV_PYTHON) -m benchmarks scale skew

# Without the dependencies of fer for videos and for its second face detector, such as PyTorch.
bench-fer: $(STAMP) .venv-fer/.complete ## run the benchmark of scoring and compare it with the package fer
	@$(VENV_PYTHON) -m benchmarks scoring

.venv-fer/.complete: | $(STAMP)
	@rm -rf .venv-fer
	@$(VENV_PYTHON) -m venv .venv-fer
	@.venv-fer/bin/python -m pip install --quiet --disable-pip-version-check --no-deps 'fer>=25.10,<26'
	@.venv-fer/bin/python -m pip install --quiet --disable-pip-version-check \
	    'opencv-contrib-python<5' 'tensorflow$(if $(filter Linux-x86_64,$(shell uname -sm | tr " " -)),-cpu)' \
	    requests Pillow 'setuptools<81'
	@touch $@

clean: ## remove .venv, caches and builds; artifacts/ stays
	rm -rf .venv .venv-fer .venv-pythons build dist site *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache \
	    .ruff_cache metastore_db derby.log spark-warehouse
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Prints "ok PYTHON", or one line that says what is wrong.
# On Debian and Ubuntu ensurepip, which venv needs, is in a separate package.
define FIND_PYTHON
unsuitable=; incomplete=; \
for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
    version=$$("$$python" -E -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) \
        || continue; \
    case $$version in \
        3.11 | 3.12 | 3.13) ;; \
        *) unsuitable="$$unsuitable$${unsuitable:+, }$$python is $$version"; continue ;; \
    esac; \
    if "$$python" -E -c 'import ensurepip, venv' 2>/dev/null; then echo "ok $$python"; exit; fi; \
    incomplete="$${incomplete:-$$python lacks ensurepip: apt install python3-venv (or python$$version-venv)}"; \
done; \
echo "$${incomplete:-fer_pipeline needs Python 3.11, 3.12 or 3.13, found: $${unsuitable:-none};\
 try PYTHON=/path/to/it}"
endef

# An environment contains its own path: a copied or moved one would run the code of the other
# checkout.
ifneq ($(shell test -x $(VENV_PYTHON) && cat $(STAMP) 2>/dev/null),$(CURDIR))
$(STAMP): moved
endif

# The stamp is written last: an interrupted build starts again from nothing. editable_mode=compat puts
# the checkout on Python's path: with the default, a script beside a checkout whose folder is called
# fer_pipeline would import that folder.
$(STAMP): setup.py constraints.txt pyproject.toml
	$(eval python_check := $(shell $(FIND_PYTHON)))
	$(if $(filter ok,$(firstword $(python_check))),,$(error $(python_check)))
	@echo "Building .venv with $(lastword $(python_check)): this downloads about 1.2 GB the first time" >&2
	@rm -rf .venv
	@$(lastword $(python_check)) -m venv .venv
	@$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check \
	    --config-settings editable_mode=compat -c constraints.txt -e '.[dev]'
	@$(VENV_PYTHON) -m pip check
	@echo "$(CURDIR)" > $(STAMP)
