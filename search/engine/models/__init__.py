"""What can be trained in a pack: the port, the models, and their names."""
