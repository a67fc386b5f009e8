"""Clips by ridge regression alone: the baseline of everything that draws."""
