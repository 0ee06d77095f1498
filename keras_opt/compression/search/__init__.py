"""From a trained model to the best file within limits."""
