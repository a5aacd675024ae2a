"""Search among the pictures of the catalogue: nearest items, the item that a photo shows, photos of other things."""
