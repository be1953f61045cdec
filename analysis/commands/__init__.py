"""The commands of `python -m analysis`, each imported when it is called."""
