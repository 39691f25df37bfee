"""From the text of a file to documents, with the place of each value."""
