"""Tests of `train.parts.codecs`."""
