"""What answers are worth: one exact pass, metrics, comparison, results as text, files and pictures."""
