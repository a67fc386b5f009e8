"""Tests of `train.parts.generators`."""
