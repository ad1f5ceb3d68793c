"""How the small SCAIL-2 is trained: networks in PyTorch whose weights are the project's own, bit for bit."""
