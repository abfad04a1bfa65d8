"""Measure bullwhip: skill, speed and scale. Not shipped."""
