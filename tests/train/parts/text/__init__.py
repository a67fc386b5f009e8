"""Tests of `train.parts.text`."""
