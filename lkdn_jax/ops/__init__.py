"""Array operations that have more than one implementation."""
