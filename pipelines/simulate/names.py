"""Give made-up suppliers, products and places names a person can remember."""

import itertools

import numpy as np

# fmt: off
STEMS = [
    "Ostberg", "Kaldova", "Merrin", "Tanvale", "Brixholm", "Solvane", "Dorrego", "Hakaru", "Lindqvarn", "Petrosk",
    "Amberley", "Vantara", "Quillon", "Zelmor", "Norrhag", "Calveto", "Ruthwen", "Ishimori", "Garrick", "Belmora",
    "Tarnow", "Felsing", "Oyara", "Windrush", "Castelan", "Dravik", "Marlowe", "Senju", "Halvorn", "Pintado",
    "Rosmer", "Ulvik", "Arkady", "Juneau", "Keswick", "Lorimer", "Montoro", "Nagata", "Orvieto", "Pellworm",
]
# fmt: on

# category: (word in a supplier's name, products, sizes, yearly season: amplitude and peak as share of the year)
CATEGORIES: dict[str, tuple[str, tuple[str, ...], str, tuple[float, float]]] = {
    "castings": ("Castings", ("Pump housing", "Valve body", "Gear case", "Flange"), "mm", (0.10, 0.30)),
    "bearings": ("Bearings", ("Ball bearing", "Roller bearing", "Thrust washer", "Bushing"), "mm", (0.06, 0.55)),
    "electronics": ("Electronics", ("Controller board", "Inverter", "Relay", "Power supply"), "W", (0.22, 0.88)),
    "cables": ("Cable Works", ("Control cable", "Wire harness", "Patch lead", "Power cord"), "m", (0.12, 0.42)),
    "packaging": ("Packaging", ("Carton", "Pallet wrap", "Foam insert", "Label roll"), "cm", (0.28, 0.90)),
    "plastics": ("Polymers", ("Hose", "Seal ring", "Cover", "Tube"), "mm", (0.15, 0.48)),
    "pumps": ("Pumps", ("Dosing pump", "Booster pump", "Impeller", "Sump pump"), "l/min", (0.35, 0.50)),
    "sensors": ("Sensors", ("Pressure sensor", "Level probe", "Encoder", "Flow meter"), "bar", (0.08, 0.20)),
    "fasteners": ("Fasteners", ("Hex bolt", "Anchor", "Rivet", "Lock nut"), "mm", (0.18, 0.38)),
}

# region: (country, city, latitude, longitude)
PLACES: dict[str, tuple[tuple[str, str, float, float], ...]] = {
    "west-europe": (("DE", "Stuttgart", 48.8, 9.2), ("NL", "Eindhoven", 51.4, 5.5), ("IT", "Brescia", 45.5, 10.2)),
    "east-europe": (("PL", "Wroclaw", 51.1, 17.0), ("CZ", "Brno", 49.2, 16.6), ("RO", "Cluj", 46.8, 23.6)),
    "north-america": (("US", "Toledo", 41.7, -83.6), ("US", "Tulsa", 36.2, -96.0), ("CA", "Hamilton", 43.3, -79.9)),
    "east-asia": (("CN", "Ningbo", 29.9, 121.5), ("CN", "Dongguan", 23.0, 113.7), ("TW", "Taichung", 24.1, 120.7)),
    "south-asia": (("IN", "Pune", 18.5, 73.9), ("IN", "Chennai", 13.1, 80.3), ("VN", "Haiphong", 20.9, 106.7)),
    "latin-america": (("MX", "Monterrey", 25.7, -100.3), ("BR", "Joinville", -26.3, -48.8)),
}
REGIONS = tuple(PLACES)

# site_id, name, region, country, latitude, longitude
SITES = (
    ("ROT", "Rotterdam distribution centre", "west-europe", "NL", 51.9, 4.5),
    ("MEM", "Memphis distribution centre", "north-america", "US", 35.1, -90.0),
    ("KTW", "Katowice plant", "east-europe", "PL", 50.3, 19.0),
    ("GDL", "Guadalajara plant", "latin-america", "MX", 20.7, -103.3),
)
DESKS = ("Desk Aster", "Desk Birch", "Desk Cedar", "Desk Drift", "Desk Ember")


def supplier_names(rng: np.random.Generator, categories: list[str], part: int) -> list[str]:
    """Return one distinct company name per supplier; when stems run out, and in later parts, they get a number."""
    stems = rng.permutation(np.array(STEMS))
    rounds = itertools.count(part * -(-len(categories) // len(STEMS)))
    numbers = (f" {n + 1}" if n else "" for n in rounds)
    endless = (stem + number for number in numbers for stem in stems)
    return [f"{stem} {CATEGORIES[category][0]}" for stem, category in zip(endless, categories, strict=False)]


def product_name(rng: np.random.Generator, category: str) -> str:
    _, nouns, unit, _ = CATEGORIES[category]
    return f"{nouns[rng.integers(len(nouns))]} {int(rng.integers(2, 64)) * 5} {unit}"
