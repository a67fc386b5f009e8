"""Show a film frame by frame, with markers: ``rtdecode play``."""
