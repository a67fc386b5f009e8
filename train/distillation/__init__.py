"""Distillation: a trained generator learns to take large steps, and to need no second pass for guidance.

A teacher that takes many guided steps goes on as the student: low-rank adapters and a span embedding let the
same network predict the mean velocity from one noise level to any other (a flow map; Boffi et al. 2024,
arXiv:2406.07507; Geng et al. 2025, arXiv:2505.13447). `train.distillation.targets` says what the student is
to predict, `train.distillation.gates` whether it may replace its teacher, and `train.distillation.teaching`
trains it. `train.distillation.dmd` is a second stage, on clips that the student draws.
`train.distillation.clock` brings generators of every kind onto the same clock, so that
`train.distillation.student` serves all video models of diffusers.
"""
