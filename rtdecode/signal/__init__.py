"""Causal, stateful signal processing shared by training and streaming."""
