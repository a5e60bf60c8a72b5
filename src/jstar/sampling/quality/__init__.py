"""Room of sample quality: features of images, and distances between two sets of features."""
