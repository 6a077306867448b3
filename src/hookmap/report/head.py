"""The head of the page: what was run, and how much of it there is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hookmap._text import listed
from hookmap.report.packing import title_of, without_folders
from hookmap.runs.results import Run, without_evidence


def header(run: Run) -> dict[str, Any]:
    """What the head of the page shows, by name: see ``pages/skeletons/report.html``."""
    shown = run.of_heatmaps(["asked", "method", "layer", "evidence"])
    model = without_folders(str(run.about["model"]["name"]))
    methods = listed(title_of(name) for name in shown["method"].unique())
    layers = listed(shown["layer"].dropna().unique())
    what = f"{methods} at {layers}" if methods else "no heatmaps"
    kinds = shown.drop(columns="evidence").drop_duplicates()
    about = ""
    if len(kinds) > 1:
        asked, method, layer = (str(one) for one in kinds.iloc[0])
        about = (
            f"All parts but the gallery are about one of {len(kinds)} kinds of heatmaps: "
            f"{title_of(method)} at {layer}, target {asked}."
        )
    remarks = filter(None, (without_folders(run.complaint), without_evidence(shown)))
    return {
        "title": f"{model}: {what}",
        "model": model,
        "what": what,
        "source": _source(run.about),
        "remarks": [sentence[:1].upper() + sentence[1:] for sentence in remarks],
        "about": about,
        "figures": _figures(run),
        "made": _made(run.about),
    }


def _figures(run: Run) -> list[tuple[str, str, str]]:
    """Numbers of the run: what they are, how many, and of how many where that isn't all."""
    table, shown = run.table, run.of_heatmaps(["evidence", "half_area"])
    images = table.loc[~table["id"].duplicated(), ["correct", "label", "prediction", "probability"]]
    judged = images["correct"].dropna().astype(bool)
    silent = int((shown["evidence"] != "some").sum())
    labels = images["label"].nunique()
    figures = [("images", f"{len(images):,}", "")]
    if len(shown) != len(images):
        figures.append(("heatmaps", f"{len(shown):,}", ""))
    if labels:
        figures.append(("labels", f"{labels:,}", ""))
    if images["prediction"].notna().any():
        figures.append(("classes predicted", f"{images['prediction'].nunique():,}", ""))
    if len(judged):
        of = "" if len(judged) == len(images) else f"{len(judged):,}"
        figures.append(("predicted as labelled", f"{judged.mean():.1%}", of))
    if images["probability"].notna().any():
        figures.append(("median probability", f"{images['probability'].median():.0%}", ""))
    if shown["half_area"].notna().any():
        figures.append(("of the picture hold half of the heat", f"{shown['half_area'].median():.0%}", ""))
    if silent:
        figures.append(("heatmaps without evidence", f"{silent:,}", ""))
    return [*figures, ("errors", f"{int(table['error'].notna().sum()):,}", "")]


def _source(about: Mapping[str, Any]) -> str:
    source = dict(about.get("source", {}))
    where = without_folders(str(source.get("from") or ""))
    kind = str(source.get("kind", "data"))
    when = _day(about.get("finished") or about.get("begun"))
    return " ".join(filter(None, (f"Data: {kind}", where))) + f". {when}"


def _made(about: Mapping[str, Any]) -> dict[str, str]:
    """How the run was made, line by line."""
    model, labels, source = (dict(about.get(name, {})) for name in ("model", "labels", "source"))
    return {
        "Model": f"{without_folders(str(model['name']))}, {labels.get('count') or 'unnamed'} classes",
        "Weights": f"SHA-256 {str(model.get('weights', ''))[:16]}",
        "Preprocessing": str(about.get("preprocessing", "")),
        "Target": without_folders(listed(about.get("target", ()))),
        "Options": without_folders(", ".join(f"{name}={value}" for name, value in dict(about.get("how", {})).items())),
        "Data": ", ".join(f"{name}: {without_folders(str(value))}" for name, value in source.items()),
        "Run": f"from {about.get('begun', '?')} to {about.get('finished') or 'an end that never came'}",
        "With": ", ".join(f"{name} {version}" for name, version in dict(about.get("versions", {})).items()),
    }


def _day(moment: Any) -> str:
    """A day in words; nothing if it isn't known."""
    try:
        day = datetime.fromisoformat(str(moment))
    except ValueError:
        return ""
    return f"{day.day} {day:%B %Y}."
