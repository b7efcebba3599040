# Everything runs in .venv, which the first command makes. `make help` lists the commands.

PYTHON     ?= python3
PORT       ?= 5000
DASHBOARD_PORT ?= 8080
# handed on in the environment, so that a name may hold spaces and quotes
export GRID SEARCH EXPERIMENT DATA WORKERS KILLS RUN

VENV  := .venv
PY    := $(VENV)/bin/python
READY := $(VENV)/.ready
# the experiment to analyse: the one named, or the grid's, or else (empty) the one that was launched last
NAME   = name="$$EXPERIMENT"; [ -n "$$name" ] || { name="$${GRID\#\#*/}"; name="$${name%.yaml}"; name="$${name%.yml}"; }

# $(call free,port,command,another): whether nothing listens there yet, or an error that says why it can't be used
free = $(PY) -c 'import socket, sys; socket.create_server(("127.0.0.1", int(sys.argv[1]))).close()' "$(1)" 2>/dev/null || \
	{ echo "error: port $(1) can't be used: it is taken, by another $(2) perhaps, or is none; name another one: $(2) $(3)" >&2; exit 2; }

# $(call alike,run): refuses flags of the launch after which the analysis would be of other runs, or look for data elsewhere
other = error: FLAGS with --data, --experiment or --mlruns are not heard by the analysis that follows; DATA=folder names the folder of \
	data sets, EXPERIMENT=name the experiment, and for another folder of runs it is $(PY) -m experiments $(1) ... --mlruns DIR, then $(PY) -m analysis --mlruns DIR
alike = $(if $(filter --data --data=% --experiment --experiment=% --mlruns --mlruns=%,$(FLAGS)),echo "$(other)" >&2; exit 2;)

.DEFAULT_GOAL := help
.PHONY: help setup ablation plan search dashboard sync tables plots figures report ui bench test test-slow test-gpu chaos lint format lock clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo '  GRID=name or file.yaml   the grid (default: paper with CUDA, quick without)'
	@echo '  SEARCH=name or file.yaml the search (default: mnist with CUDA, quick without)'
	@echo '  EXPERIMENT=name          the MLflow experiment (default: the name of the grid; of a search, its name and -search)'
	@echo '  DATA=folder              where data sets are, or are downloaded to (default: CAPSNET_DATA, or data)'
	@echo '  WORKERS=n                runs at once (default: what suits the machine; 0 = one after the other, in one process)'
	@echo '  FLAGS="--fresh"          more flags; python -m experiments run --help, or of analysis or benchmarks, lists them'
	@echo '  RUN=id                   the run that make figures pictures (default: the best one of the experiment)'
	@echo '  PORT=n, DASHBOARD_PORT=n where make ui and make dashboard serve (default: 5000, 8080)'

setup: $(READY) ## make .venv from requirements.lock, whose python imports this checkout from anywhere

$(READY): requirements.lock requirements-uv.lock
	@# the newest is the newest of which Ray and PyArrow have wheels
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14) and f"error: Python 3.11 to 3.14 is needed, which the packages in requirements.lock are made for, but $(PYTHON) is {sys.version.split()[0]}; name another one: make PYTHON=python3.12 ...")'
	@echo 'making .venv: about 6 GB, most of it CUDA libraries of PyTorch; a minute or a few, once'
	@$(PYTHON) -m venv $(VENV)
	@# uv takes a quarter of pip's time; where it can't reach its index (it reads no pip.conf), pip does it. It takes the
	@# system's certificates, as pip does: its own know no company's
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@UV_SYSTEM_CERTS=1 $(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(PY) --require-hashes -r requirements.lock || \
		{ echo 'uv could not install the packages; pip does it, which takes a few minutes' && \
		$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock; }
	@# so that a script anywhere can import capsnet, experiments and analysis, as this checkout has them: nothing is built
	@$(PY) -c 'import os, sysconfig; open(sysconfig.get_path("purelib") + "/checkout.pth", "wb").write(os.fsencode(os.getcwd() + "\n"))'
	@touch $@

ablation: $(READY) ## train what is not finished of a grid, then make its tables, plots, figures and report
	@$(call alike,run) $(PY) -m experiments run $${GRID:+"$$GRID"} $${EXPERIMENT:+--experiment "$$EXPERIMENT"} $${DATA:+--data "$$DATA"} \
		$${WORKERS:+--workers "$$WORKERS"} $(FLAGS); code=$$?; \
	if [ $$code -gt 1 ]; then exit $$code; fi; \
	$(NAME); $(PY) -m analysis $${name:+"$$name"} $${DATA:+--data "$$DATA"} && exit $$code

plan: $(READY) ## list the cells of a grid (GRID=quick by default), what is finished of them, and what the rest costs
	@$(PY) -m experiments plan "$${GRID:-quick}" $${EXPERIMENT:+--experiment "$$EXPERIMENT"} \
		$${WORKERS:+--workers "$$WORKERS"} $(FLAGS)

search: $(READY) ## find good settings with Optuna, confirm the best on fresh seeds, then make their tables and report
	@$(call alike,search) $(PY) -m experiments search $${SEARCH:+"$$SEARCH"} $${EXPERIMENT:+--experiment "$$EXPERIMENT"} $${DATA:+--data "$$DATA"} \
		$${WORKERS:+--workers "$$WORKERS"} $(FLAGS); code=$$?; \
	if [ $$code -gt 1 ]; then exit $$code; fi; \
	$(PY) -m analysis $${EXPERIMENT:+"$$EXPERIMENT"} $${DATA:+--data "$$DATA"} && exit $$code

dashboard: $(READY) ## look at the studies of searches in a browser, on this machine only
	@[ -n "$$OPTUNA_STORAGE" ] || [ -s mlruns/optuna.db ] || \
		{ echo "error: no search has been launched yet; make search launches one" >&2; exit 2; }
	@$(call free,$(DASHBOARD_PORT),make dashboard,DASHBOARD_PORT=8081)
	@exec $(VENV)/bin/optuna-dashboard --host 127.0.0.1 --port $(DASHBOARD_PORT) \
		"$${OPTUNA_STORAGE:-sqlite:///$(CURDIR)/mlruns/optuna.db}"

sync: $(READY) ## tell MLflow what it missed while it was away
	@$(PY) -m experiments sync

tables: $(READY) ## make the tables of an experiment again (the one launched last, or EXPERIMENT=)
	@$(NAME); $(PY) -m analysis $${name:+"$$name"} --only tables $(FLAGS)

plots: $(READY) ## make the plots of an experiment again (the one launched last, or EXPERIMENT=)
	@$(NAME); $(PY) -m analysis $${name:+"$$name"} --only plots $${DATA:+--data "$$DATA"} $(FLAGS)

figures: $(READY) ## picture what the best run's network sees and does (or that of RUN=its id), into results and MLflow
	@$(PY) -m analysis figures $${RUN:+"$$RUN"} $${EXPERIMENT:+--experiment "$$EXPERIMENT"} $${DATA:+--data "$$DATA"} $(FLAGS)

report: $(READY) ## make the report of an experiment again, one HTML file (the one launched last, or EXPERIMENT=)
	@$(NAME); $(PY) -m analysis $${name:+"$$name"} --only report $${DATA:+--data "$$DATA"} $(FLAGS)

ui: $(READY) ## browse the runs in MLflow's user interface, on this machine only
	@# in the background, where Ctrl-C is ignored but by who asks for it: its web server raises it anew at its end, and all tell of it
	@case "$$MLFLOW_TRACKING_URI" in \
	http*) address=$$(printf %s "$$MLFLOW_TRACKING_URI" | sed -e 's#//[^/@]*@#//#' -e 's#/*$$##'); \
		echo "MLFLOW_TRACKING_URI names a server; open $$address/#/experiments?workflowType=machine_learning" ;; \
	*) $(call free,$(PORT),make ui,PORT=5001) || exit 2; \
		echo "serving on http://127.0.0.1:$(PORT)/#/experiments?workflowType=machine_learning (Ctrl-C ends it)"; \
		trap 'asked=1; kill $$server' INT TERM; \
		MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(VENV)/bin/mlflow server \
			--host 127.0.0.1 --port $(PORT) --workers 1 \
			--backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlruns/mlflow.db}" & \
		server=$$!; wait $$server; code=$$?; trap '' INT TERM; \
		if [ -n "$$asked" ]; then wait $$server; exit 0; fi; exit $$code ;; \
	esac

bench: $(READY) ## measure speed and memory, against a textbook version and this machine's floor: under 5 minutes
	@$(PY) -m benchmarks $(FLAGS)

test: $(READY) ## run the tests, but for those marked slow or gpu
	@# a file's tests in one process, as they share a browser, a server or a database
	@$(PY) -m pytest -q -m 'not slow and not gpu' --numprocesses auto --maxprocesses 4 --dist loadfile

test-slow: $(READY) ## run the slow tests: a cluster, many writers, a grid and a search killed fifteen times each
	@# much of their time they wait; whoever is idle takes tests from the other
	@$(PY) -m pytest -q -m 'slow and not gpu' --numprocesses auto --maxprocesses 4 --dist worksteal

test-gpu: $(READY) ## run the tests that need a CUDA device
	@# without what other tests run under: on what torch.compile does with its own modules, warnings as errors and the checks of
	@# shapes end a test that has nothing wrong
	@$(PY) -m pytest -q -m gpu -o addopts="--import-mode=importlib --strict-markers" -o filterwarnings=default

chaos: $(READY) ## kill parts of a grid and of a search at random, KILLS=15 times each, and show that nothing was lost
	@$(PY) -m tests.chaos --kills "$${KILLS:-15}"

lint: $(READY) ## check style, formatting and types
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

format: $(READY) ## format the code
	@$(PY) -m ruff check --fix --quiet . ; $(PY) -m ruff format .

lock: $(READY) ## pin the newest versions that pyproject.toml allows, with hashes
	@$(VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
		--extra dev pyproject.toml -o requirements.lock
	@echo uv | $(VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
		- -o requirements-uv.lock

clean: ## remove .venv and caches; runs (mlruns/), tables and plots (results/) and data sets (data/) stay
	@rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache build *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
