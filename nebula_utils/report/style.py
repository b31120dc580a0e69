"""How the classes look in every figure: colours, markers, names on screen."""

from typing import Any

from nebula_utils.config import CLASS_NAMES

# Colour and marker: told apart by the colour-blind and in a grey print.
CLASS_STYLE: dict[str, dict[str, Any]] = {
    "dark": {"color": "#000000", "marker": "o"},
    "emission": {"color": "#CC3311", "marker": "s"},
    "reflection": {"color": "#0072B2", "marker": "D"},
    "planetary": {"color": "#44AA99", "marker": "^"},
    "protoplanetary": {"color": "#E69F00", "marker": "v"},
    "supernova_remnant": {"color": "#882255", "marker": "P"},
    "other": {"color": "#777777", "marker": "x"},
}

CLASS_LABELS: dict[str, str] = {
    name: name.replace("_", " ") for name in CLASS_NAMES if name != "other"
} | {"other": "not a nebula"}
