"""Upscaling any image, in tiles."""
