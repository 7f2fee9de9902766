"""What is found in a user's data, and what follows from it for a run."""
