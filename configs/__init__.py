"""Configurations: `default` has every field, the others change a few."""
