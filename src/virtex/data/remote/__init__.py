"""Data in object stores and on web servers: the only room that uses the network."""
