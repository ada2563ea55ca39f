"""Measurements of the model: speed, and fidelity to the virtual platform."""
