"""What the Wan 2.1 and 2.2 models have in common: text, and for some a picture that a clip begins or ends with."""
