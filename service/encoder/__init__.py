"""From the bytes of a picture to a unit vector: preprocessing, the engines that run the network, the choice among them.
What is here knows no HTTP, no settings and no database."""
