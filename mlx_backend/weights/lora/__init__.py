"""LoRAs: their spellings, and what each does to a network."""
