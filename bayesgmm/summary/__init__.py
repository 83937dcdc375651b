"""What follows from a posterior, as one value, and the sentences made from it: for the command line and the page."""
