"""The simulated participant's brain, head and heart, with the scanner and the amplifier around them."""
