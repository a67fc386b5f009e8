"""Vocabulary, causal signal code and command line of rtdecode."""

__version__ = "0.1.0"
