"""Formats of data sets in files: each module reads one of them, and believes nothing it reads."""
