"""optuna-dashboard in a process of its own; `python -m ridgeline.service.dashboard` starts it."""
