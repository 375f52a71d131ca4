"""New pictures: which of them were asked about, what a run says of them, and where they go by their answers."""
