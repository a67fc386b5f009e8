"""Distillation: a trained generator learns to take large steps, and to need no second pass for guidance.

A teacher that takes many guided steps goes on as the student: low-rank adapters and a span embedding let the
same network predict the mean velocity from one noise level to any other (a flow map; Boffi et al. 2024,
arXiv:2406.07507; Geng et al. 2025, arXiv:2505.13447). `train.distillation.targets` says what the student is
to predict, and `train.distillation.gates` whether it may replace its teacher. `train.distillation.clock`
brings generators of other kinds onto the same clock; no recipe uses it yet.
"""
