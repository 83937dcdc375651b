"""What the draws of a mixture say about the rows: assignments and their uncertainty."""
