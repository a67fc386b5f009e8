"""Attacks on the whole product: killed processes, and mutated volumes, recordings and stream descriptions.

`python -m tests.hostile` runs them; `docs/testing.md` says what it counts. Every case draws from a generator
of its own, seeded by the run's seed, the part and the number of the case, so that one alone can be repeated.
"""
