# People and CI run the same targets.  `make demo` and `make test` need nothing but Python 3.11+.
PY := .venv/bin/python
.PHONY: setup demo clean-demo test test-deep check fix

setup:
	@scripts/setup

demo: setup  ## the whole loop with a real LLM; ARGS=--exit ends when the story is told
	@$(PY) -m ratchet.entrypoints.cli.main demo $(ARGS)

clean-demo:  ## forget everything the demo made
	rm -rf .ratchet/demo

test: setup  ## unit, contract, integration and end-to-end tests
	@scripts/test $(ARGS)

test-deep: setup  ## kills, vLLM, MLflow, the browser: minutes to an hour
	@scripts/test-deep $(ARGS)

check: setup  ## format, lint, types, layers, sizes, generated code
	@scripts/check

fix: setup  ## format and repair what tools can repair
	@$(PY) -m ruff format -q . && $(PY) -m ruff check -q --fix .

bench-%: setup  ## measure; ARGS=--quick for two minutes; also writes build/bench/NAME.json
	@$(PY) benchmarks/$*.py $(ARGS)
