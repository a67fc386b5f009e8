"""Commands beside a session: they look, check, measure and show."""
