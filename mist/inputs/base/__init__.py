"""What the inputs of published streams share."""
