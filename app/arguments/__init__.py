"""The commands of `patients-api` and their arguments, which are known without importing what the commands need."""
