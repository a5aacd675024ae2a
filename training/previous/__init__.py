"""An earlier release, from which a training goes on: what is kept of it, and whether its encoder still holds."""
