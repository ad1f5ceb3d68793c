"""The proof that a GPU computes what the CPU does: one command, a table and a verdict; see docs/doctor.md."""
