"""Commands beside a session: look, check, measure, show."""
