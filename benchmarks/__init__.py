"""Benchmarks of the project; all on one thread of the libraries of numbers, which are loaded after this."""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
