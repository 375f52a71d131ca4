"""One picture: judged (gate), decoded, seen and distorted (views). Knows nothing of records or networks."""
