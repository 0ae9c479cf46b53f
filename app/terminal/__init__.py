"""What commands share that is not about the service: progress bars, signals, safe files, words."""
