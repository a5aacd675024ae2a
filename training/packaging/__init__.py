"""Making a release from the products of the stages, and packing it as a bento or a container image."""
