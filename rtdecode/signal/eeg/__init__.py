"""Causal EEG filters and repairs."""
