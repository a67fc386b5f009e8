"""Sections that come with the package: one group of metrics in each file."""
