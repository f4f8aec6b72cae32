"""What is learnt from a store: tasks, heads, and how well the heads do."""
