"""From brain signals, films and captions to vectors and tokens."""
