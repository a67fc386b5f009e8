"""Tests of `train.parts`."""
