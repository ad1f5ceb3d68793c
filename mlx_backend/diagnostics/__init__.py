"""What this machine can do: its rate (probe), whether its numbers are right (doctor), the cost of a pass (bench)."""
