"""What was trained here, for other programs."""
