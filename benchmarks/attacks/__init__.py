"""What the campaign attacks, one module for each kind of attack; see ../campaign.py."""
