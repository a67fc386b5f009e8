"""The film that the simulated participant watches, and what can be read off a picture of it."""
