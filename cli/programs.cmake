# The two programs; the first links no LibTorch and starts in milliseconds.
