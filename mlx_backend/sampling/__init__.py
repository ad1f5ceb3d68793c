"""Noise, sigma grids, solvers, guidance and the denoising loop; a model is a callable here."""
