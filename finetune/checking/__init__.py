"""Findings about data before any training: duplicates, label errors, odd pictures, shortcuts, what more would bring."""
