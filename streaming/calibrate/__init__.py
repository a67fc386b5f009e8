"""`rtdecode calibrate`: today's head, before a session."""
