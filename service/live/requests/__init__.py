"""What somebody asks to be changed or kept, checked."""
