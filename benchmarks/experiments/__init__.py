"""Experiments: each answers one question, once. README.md lists them."""
