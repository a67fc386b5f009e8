"""Parts that recipes put together."""
