"""The person at the terminal and the machine beneath: nothing of pictures."""
