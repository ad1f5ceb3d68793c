"""Scripts that draw the sample pictures and videos of this project."""
