"""What can be asked for, what can go wrong and what is reported; needs neither MLX nor torch."""
