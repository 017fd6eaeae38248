"""One benchmark a file. `hkd_core.evaluation.registry` lists them; `docs/routes/benchmark.md` adds one."""
