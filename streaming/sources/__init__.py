"""Receive EEG and markers over the network, and volumes from a folder."""
