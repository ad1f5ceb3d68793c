"""What tensors are called: every published layout against the names that the networks carry."""
