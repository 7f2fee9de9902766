"""Data behind object stores and web servers: the only room that uses the network."""
