"""Tests of `train.parts.losses`."""
