# `make study` and `make test` set everything up first: into .venv, unless an active environment already has hkd_core.
# The shell, not make, puts folder names into commands: a name may hold any character. -I leaves this folder out of the search.
ENVIRONMENT = $$(for e in "$$VIRTUAL_ENV" "$$CONDA_PREFIX"; do \
	[ "$$e" ] && ! [ "$$e" -ef .venv ] && "$$e/bin/python" -I -c "import hkd_core" 2>/dev/null && printf %s "$$e" && exit; done; \
	printf %s "$$PWD/.venv")
# On PATH too, for the pipeline's commands; no activation needed.
RUN = E="$(ENVIRONMENT)"; PATH="$$E/bin:$$PATH" "$$E/bin/python"
# What .venv is made from: by content, since git and unpacking change times, and with the folder, since that may move.
WANTED = $$(cat requirements.lock pyproject.toml | cksum) $$PWD
export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export JUPYTER_PREFER_ENV_PATH := 1

.DEFAULT_GOAL := help
SEEDS ?= 0 1 2
.PHONY: study smoke seeds ablations test bench help lab lint clean-notebooks lock setup ready scm

study: ready scm ## set up and run the whole study (dvc repro); ARGS=pyramid for instance runs it up to that stage
	@$(RUN) -m dvc repro $(ARGS)

smoke: ready scm ## set up and run every stage in small, to see that all works; the numbers mean nothing
	@$(RUN) -m hkd_core.repro smoke $(ARGS)

seeds: ready ## the whole study for each of SEEDS="0 1 2", put together: some forty-five minutes each
	@$(RUN) -m hkd_core.seeds study $(SEEDS)
	@$(RUN) -m dvc repro reports/seeds/dvc.yaml:seeds

ablations: ready ## what each part of HKD4VLM is worth, after the study of each of SEEDS: some half an hour more each
	@$(RUN) -m hkd_core.seeds ablations $(SEEDS)
	@$(RUN) -m dvc repro reports/seeds/dvc.yaml:ablation_tables

test: ready ## set up and run the tests; ARGS="-k losses" for instance chooses some
	@$(RUN) -m pytest -q $(ARGS)

bench: ready ## run the scripts under benchmarks/, one after the other; some minutes each (chair.py wants a file: see there)
	@for script in $(filter-out benchmarks/chair.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(RUN) "$$script" || exit 1; done

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | \
	while IFS='|' read -r name text; do printf '  make %-17s%s\n' "$$name" "$$text"; done

lab: ready ## open the notebooks in JupyterLab
	@$(RUN) -m jupyterlab --LabApp.default_url=/lab/tree/notebooks $(ARGS)

lint: ready ## check style and types, and that notebooks are committed clean
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy
	@$(RUN) -m hkd_core.notebook clean --check

clean-notebooks: ready ## strip outputs from the notebooks
	@$(RUN) -m hkd_core.notebook clean

lock: ready ## write requirements.lock from the environment, after adding what pyproject.toml asks for
	@$(RUN) -m pip install --quiet --editable '.[test]'
	@mkdir -p build && $(RUN) -m pip list --format=freeze > build/installed
	@{ sed -n '/^#/p' requirements.lock; sed -E -e '/^(hkd[-_]core|pip|wheel|triton|(nvidia|cuda)[-_].*)==/d' \
	-e 's/[+][^+]*$$//' build/installed; } > build/requirements.lock
	@mv build/requirements.lock requirements.lock && rm build/installed

setup: ## install into .venv from requirements.lock, whether or not that was done before; PYTHON=... chooses a Python
	@set -e; rm -f .venv/ready; fail() { echo "error: $$1" >&2; exit 1; }; \
	new_enough() { "$$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }; \
	if ! new_enough .venv/bin/python || ! .venv/bin/python -c 'import pip' 2>/dev/null; then \
		for p in $(or $(PYTHON),python3 python3.13 python3.12 python3.11) ""; do \
			[ -z "$$p" ] || ! new_enough "$$p" || break; done; \
		[ "$$p" ] || fail "Python 3.11 or newer is needed; make PYTHON=/path/to/python ... chooses one"; \
		"$$p" -c 'import ensurepip, venv' 2>/dev/null || \
			fail "$$p lacks the venv module: install it (Debian: apt install python3-venv) or use environment.yml"; \
		"$$p" -m venv --clear .venv; \
	fi; \
	install() { .venv/bin/python -m pip install --quiet "$$@"; }; \
	echo "Setting up .venv: torch (1 of 3)"; \
	: first and alone, another package must not pull in a different build of it; \
	install --constraint requirements.lock "$$(grep '^torch==' requirements.lock)"; \
	echo "Setting up .venv: the other packages (2 of 3)"; \
	install --requirement requirements.lock; \
	echo "Setting up .venv: hkd_core itself (3 of 3)"; \
	install --no-deps --editable .; \
	echo "$(WANTED)" > .venv/ready

# The stamp is written last: a set-up that was cut short does not count.
ready:
	@[ "$(ENVIRONMENT)" != "$$PWD/.venv" ] || [ "$$(cat .venv/ready 2>/dev/null)" = "$(WANTED)" ] || \
	$(MAKE) --no-print-directory setup

# A ZIP download has no git; DVC must be told once.
scm: ready
	@[ -e .git ] || git rev-parse --git-dir >/dev/null 2>&1 || { $(RUN) -m dvc config --local core.no_scm true; }
