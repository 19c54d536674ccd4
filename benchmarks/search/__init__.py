"""How well samplers search, on tables of real training runs, which cost nothing to ask."""
