"""`rtdecode play`: a film shown frame by frame, with markers."""
