"""Searches over machine and training runtime: the plan with the fewest cycles."""
