"""Tests of `train.parts.encoders`."""
