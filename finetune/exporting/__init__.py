"""A run as files for elsewhere: in one graph from pixels to labels, with code that reads it, and proven."""
