"""One picture: read (disk), judged (gate), decoded, seen, distorted (views). Knows nothing of records or networks."""
