"""Tests of `train.models.conditioned`."""
