"""Fit a session to the head that is in the scanner today: ``rtdecode calibrate``."""
