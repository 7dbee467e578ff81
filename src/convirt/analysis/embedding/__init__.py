"""Pictures of the feature space, and numbers beside them."""
