"""How much training pruners save, on learning curves of real runs, which cost nothing to replay."""
