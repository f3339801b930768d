# make demo   deploy the example to a Cortex-M4 and a RISC-V in QEMU and print its accuracy there
# make test   run the whole test suite
# Each sets up what it needs (Debian or Ubuntu, root or sudo); a second run installs nothing.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ROOT   := $(if $(filter 0,$(shell id -u)),,sudo)

COMPILERS := qemu-system-arm qemu-system-misc gcc-arm-none-eabi libnewlib-arm-none-eabi \
             gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf
HOST      := make gcc g++ libc6-dev python3-venv
LINTERS   := clang cmake
FLASHERS  := openocd gdb-multiarch
BROWSER   := chromium
EMULATOR  := tests/tools/node_modules/.package-lock.json

.PHONY: demo test setup-demo setup-test format clean

demo: setup-demo
	@for target in mps2-an386 riscv-virt; do \
		$(BIN)/tinydeploy deploy examples/digits/digits_int8.tflite --target $$target \
			--inputs examples/digits/digits_test.npz || exit $$?; \
		echo; \
	done

test: setup-test
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

setup-demo: $(VENV)/.demo-installed
	@tools/install-packages $(ROOT) $(HOST) $(COMPILERS)

setup-test: $(VENV)/.test-installed $(EMULATOR)
	@tools/install-packages $(ROOT) $(HOST) $(COMPILERS) $(LINTERS) $(BROWSER) $(FLASHERS)

$(BIN)/python:
	@tools/install-packages $(ROOT) $(HOST) $(COMPILERS)
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo-installed: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/.test-installed: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.demo-installed

$(EMULATOR): tests/tools/package-lock.json
	@command -v npm >/dev/null || tools/install-packages $(ROOT) nodejs npm
	npm ci --prefix tests/tools --silent --no-fund --no-audit
	@touch $@

format:
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf dist build-out .pytest_cache .mypy_cache .ruff_cache
