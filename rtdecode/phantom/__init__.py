"""The simulated participant: film, brain, amplifier and scanner."""
