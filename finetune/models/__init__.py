"""Networks, what of them trains, their weights, what runs them. Knows nothing of records, runs or flags."""
