"""The quality of features and captions."""
