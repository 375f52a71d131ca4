"""What a frozen part of a network makes of each picture: computed once, kept, and the best head on it."""
