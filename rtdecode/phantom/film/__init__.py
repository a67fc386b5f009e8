"""The film that the simulated participant watches, and what can be read from its pictures."""
