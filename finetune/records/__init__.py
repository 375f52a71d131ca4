"""What records are and how they are read: dataset.json, TFRecord shards, batches."""
