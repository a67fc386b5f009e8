"""Windows cut out of what has arrived, run by run."""
