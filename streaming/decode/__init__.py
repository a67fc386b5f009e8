"""Turning windows into clips before their deadline."""
