"""The files in ``benchmarks/results``, each of which holds the figures that one command printed."""

from pathlib import Path

RESULTS = Path(__file__).with_name("results")
