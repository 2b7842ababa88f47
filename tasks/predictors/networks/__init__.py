"""The networks mlp and gat: their nodes, encoders, head and training."""
