"""What moves the weights: parameter groups, learning-rate schedules, Lookahead."""
