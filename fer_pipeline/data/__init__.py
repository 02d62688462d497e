"""Records, labels, images and datasets as plain NumPy and OpenCV code."""
