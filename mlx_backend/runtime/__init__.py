"""The machine: which BLAS, which device, which precision, how memory is returned."""
