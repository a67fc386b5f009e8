"""A session from its orders to its end, live or replayed."""
