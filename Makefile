# fixlip: `make figures` and `make test` do everything, from a fresh clone, with no environment active.
# Works with GNU make 3.81 (macOS) and later. Everything is installed into .venv, with plain pip.

PYTHON ?= python3
PY      = .venv/bin/python
READY   = .venv/.ready

# Threads that wait should sleep: on shared CPUs, spinning ones slow everything down.
export OMP_WAIT_POLICY ?= PASSIVE
# tqdm misses ipywidgets; plain text bars are what we want.
export PYTHONWARNINGS ?= ignore:IProgress not found

# Tests and notebooks run in so many processes, with a share of the cores each: faster than one
# process with all of them.
WORKERS ?= 2
PYTEST  = OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest -n $(WORKERS)

# The user's own words, untouched by make (value) and by the shell (environment).
export EXPLAIN_IMAGE      := $(value IMAGE)
export EXPLAIN_CAPTION    := $(value CAPTION)
export EXPLAIN_MODEL      := $(value MODEL)
export EXPLAIN_PRETRAINED := $(value PRETRAINED)
export EXPLAIN_FROM       := $(PWD)

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "Without make (Windows: .venv\\Scripts\\python in place of .venv/bin/python):"
	@echo "  python3 -m venv .venv && .venv/bin/python -m pip install -r requirements.lock -e ."
	@echo "  .venv/bin/python notebooks/run.py figures     (make figures)"
	@echo "  .venv/bin/python -m pytest -n 2               (make test)"

figures: $(READY)  ## execute all notebooks on the demo model, into runs/figures/index.html
	$(PY) notebooks/run.py figures --workers $(WORKERS)

check: $(READY)  ## style and the fast tests: two minutes, before every commit
	@status=0; \
	$(PY) -m ruff check . || status=1; \
	$(PY) -m ruff format --check . || status=1; \
	$(PYTEST) -m "not slow and not notebook" tests || status=1; \
	exit $$status

test: $(READY)  ## style, all tests, and every notebook against its committed outputs
	@status=0; \
	$(PY) -m ruff check . || status=1; \
	$(PY) -m ruff format --check . || status=1; \
	$(PYTEST) || status=1; \
	exit $$status

notebooks: $(READY)  ## execute all notebooks and refresh their committed outputs and figures/
	$(PY) notebooks/run.py refresh

data: $(READY)  ## measure the tables of data/ that notebooks read anew (long)
	$(PY) notebooks/run.py data

explain: $(if $(and $(value IMAGE),$(value CAPTION)),,explain-usage) $(READY)  ## IMAGE=photo.jpg CAPTION="a dog" MODEL=ViT-B-32 PRETRAINED=openai
	@cd "$$EXPLAIN_FROM" && "$(CURDIR)/$(PY)" -m fixlip explain --out="$(CURDIR)/runs/explain" \
	  $(if $(value MODEL),--model="$$EXPLAIN_MODEL") \
	  $(if $(value PRETRAINED),--pretrained="$$EXPLAIN_PRETRAINED") \
	  -- "$$EXPLAIN_IMAGE" "$$EXPLAIN_CAPTION"

explain-usage:
	@echo 'explain needs both: make explain IMAGE=photo.jpg CAPTION="a dog on a sofa" MODEL=ViT-B-32 PRETRAINED=openai' >&2; exit 2

lab: $(READY)  ## open the notebooks in JupyterLab
	$(PY) -m jupyterlab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks

# No environment is built for it: the Python of a GPU machine brings its own torch.
gpu:  ## on a machine with a CUDA GPU: its tests and rates, in at most 8 minutes [PYTHON=python3]
	$(if $(filter file,$(origin PYTHON)),$(or $(wildcard $(PY)),$(PYTHON)),$(PYTHON)) benchmarks/gpu.py

lock:  ## resolve requirements.lock anew from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --universal --all-extras --python-version 3.11 \
	  --no-emit-index-url --no-header --no-annotate --upgrade --output-file requirements.lock

# Old versions have warnings of their own, which are no errors here; the lock is not looked at.
lowest:  ## the fast tests at the lowest versions that pyproject.toml admits (needs uv; Python 3.11)
	uv venv --clear --quiet --python 3.11 --seed .venv-lowest
	uv pip compile pyproject.toml --no-config --all-extras --resolution lowest-direct \
	  --python-version 3.11 --quiet --output-file .venv-lowest/packages.txt
	uv pip install --no-config --quiet --python .venv-lowest --requirement .venv-lowest/packages.txt
	uv pip install --no-config --quiet --python .venv-lowest --no-deps --no-build-isolation --editable .
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n $(WORKERS) -o filterwarnings= \
	  -m "not slow and not notebook" --ignore tests/test_environment.py tests

clean:  ## remove what was built: .venv, runs and caches; figures stay
	rm -rf .venv .venv-lowest runs build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# A torch that $(PYTHON) has already is used with TORCH=system: the lock's is not installed then.
# Its folder is named in a .pth file, as --system-site-packages knows no other environment's.
ifdef TORCH
SYSTEM   = --system-site-packages
PACKAGES = .venv/packages.txt
define BORROW
	$(PYTHON) -c 'import pathlib, torch, torchvision; print(pathlib.Path(torch.__file__).parents[1])' >.venv/torch.pth
	mv .venv/torch.pth "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	grep -vE '^(torch|torchvision|triton|nvidia|cuda)[a-z0-9-]*==' requirements.lock >$(PACKAGES)
endef
else
PACKAGES = requirements.lock
endif

# Built once, and again when the lock or the package's metadata change.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] < (3, 15); sys.exit(None if ok else "fixlip needs Python 3.11 to 3.14, not %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@echo "installing into .venv: some minutes$(if $(TORCH),,, and about 6 GB with torch's CUDA libraries on Linux)"
	$(PYTHON) -m venv $(SYSTEM) .venv
	$(BORROW)
	$(PY) -m pip install --quiet --requirement $(PACKAGES)
	$(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: help figures check test notebooks data explain explain-usage lab gpu lock lowest clean
