"""What answers are worth: one exact pass, metrics, results as text, files and pictures."""
