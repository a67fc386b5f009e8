"""Shared types, causal signal processing and the command line of rtdecode."""

__version__ = "0.1.0"
