"""A learner's state outside its process: checkpoints, published policies, transfer to other tasks."""
