"""Searches that people have described for other tools, as specs of ours.

Nothing is dropped in silence: each field without a counterpart becomes a note of the `Draft`.
"""
