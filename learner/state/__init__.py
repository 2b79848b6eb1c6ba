"""A learner's state outside of its process: checkpoints, published policies, transfer to other tasks."""
