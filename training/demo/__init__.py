"""The demo: a boutique of drawn garments, and users whose tastes are known, so that evaluation knows the truth."""
