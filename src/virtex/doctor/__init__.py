"""What is found in a user's data and machine, and what follows from it for a run."""
