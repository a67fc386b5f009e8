"""Figures of clips besides identification."""
