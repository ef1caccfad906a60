"""Shards to a model to audio: models, losses, step, loop, launch, generation."""
