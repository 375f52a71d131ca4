"""New pictures: which of them were asked about, and where they go by their answers."""
