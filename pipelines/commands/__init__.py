"""The commands, by who uses them; cli.py names them in their order."""
