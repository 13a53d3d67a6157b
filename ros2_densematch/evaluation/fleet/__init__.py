"""Many recordings: each is replayed in a process of its own, here or on the machines of a Ray cluster."""
