"""Formats on disk: recordings, calibrations, videos, sealed folders and strict JSON."""
