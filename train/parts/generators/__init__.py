"""What draws the latents of videos from noise, under tokens."""
