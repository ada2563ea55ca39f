"""Learning in epochs: runs, what came of them, what they cost on the device, and files that keep them."""
