"""Volumes as files that a scanner writes into a folder."""
