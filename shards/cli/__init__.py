"""The command-line tool for datasets of latents: one file for each group of verbs."""
