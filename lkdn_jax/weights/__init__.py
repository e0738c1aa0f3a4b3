"""Parameter files: published names and our tree, readers and writers."""
