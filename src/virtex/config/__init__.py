"""The configuration: its schema, and how files and overrides are read."""
