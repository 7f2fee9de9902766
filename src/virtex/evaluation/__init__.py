"""How good features and captions are."""
