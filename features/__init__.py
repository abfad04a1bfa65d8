"""Time and tables: contracts, panels, features and labels. No clock, no network, no models."""
