"""Stamps turned into one time line: when a run began, when each sample and each volume was taken."""
