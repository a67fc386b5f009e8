"""EEG filters and repairs that look back alone."""
