"""The models: what makes new latents out of two sources."""
