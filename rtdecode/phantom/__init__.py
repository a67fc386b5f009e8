"""Simulate a participant: film, brain, amplifier and scanner."""
