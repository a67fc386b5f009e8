"""What is judged of a session, its sources and its machine: one limit and one sentence for each thing."""
