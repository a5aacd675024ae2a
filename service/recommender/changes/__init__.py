"""What lets the parts of an opened release change in memory, while others read them."""
