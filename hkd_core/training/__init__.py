"""The one training loop and the objectives that both methods share."""
