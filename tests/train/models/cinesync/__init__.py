"""Tests of `train.models.cinesync`."""
