"""What a sample of latents is: schema, codec, format, loader and inspection of datasets of latents."""

from shards.dataset import Dataset, open_dataset

__all__ = ["Dataset", "open_dataset"]
