"""The search vocabulary: finds words in patients' names that are similar to typed words, and deletes unused words."""
