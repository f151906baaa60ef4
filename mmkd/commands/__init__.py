"""The commands of ``mmkd``, one a file. What is slow to import is imported where a command runs."""
