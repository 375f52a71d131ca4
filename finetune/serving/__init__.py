"""A run or an export that answers over HTTP, to the page beside it and to programs: guarded, and in little memory."""
