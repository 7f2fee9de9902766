"""The processes of a job: starting, connecting, watching and stopping them."""
