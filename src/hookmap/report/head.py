"""The head of the page: what was run, and how much of it there is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from html import escape
from typing import Any

from hookmap._text import listed
from hookmap.report.packing import title_of, without_folders
from hookmap.runs.results import Run, without_evidence


def header(run: Run) -> tuple[str, str]:
    """The page's title, and its head as HTML."""
    about, shown = run.about, run.explained
    model = without_folders(str(about["model"]["name"]))
    methods = listed(title_of(name) for name in shown["method"].unique())
    layers = listed(shown["layer"].dropna().unique())
    what = f"{methods} at {layers}" if methods else "no heatmaps"
    kinds = shown[["asked", "method", "layer"]].drop_duplicates()
    first = ""
    if len(kinds) > 1:
        asked, method, layer = (str(one) for one in kinds.iloc[0])
        which = (
            f"All parts but the gallery are about one of {len(kinds)} kinds of heatmaps: {title_of(method)} at {layer}"
        )
        first = f'<p class="what">{escape(which)}, target {escape(asked)}.</p>'
    remarks = "".join(
        f'<p class="flag">{escape(sentence[:1].upper() + sentence[1:])}.</p>'
        for sentence in (without_folders(run.complaint), without_evidence(run.explained))
        if sentence
    )
    made = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _made(about).items() if value)
    figures = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in _figures(run).items() if value
    )
    return (
        f"{model}: {what}",
        f'<header class="head"><h1>{escape(model)}</h1><p class="what">{escape(what)}. {escape(_source(about))}</p>'
        f'{remarks}{first}<dl class="figures">{figures}</dl>'
        f'<details><summary>How it was made</summary><dl class="made">{made}</dl></details></header>',
    )


def _figures(run: Run) -> dict[str, str]:
    """Numbers of the run, as HTML."""
    table, shown = run.table, run.explained
    images = table.drop_duplicates("id")
    judged = images["correct"].dropna().astype(bool)
    silent = int((shown["evidence"] != "some").sum())
    errors = int(table["error"].notna().sum())
    labels = images["label"].nunique()
    figures = {"images": f"{len(images):,}"}
    if len(shown) != len(images):
        figures["heatmaps"] = f"{len(shown):,}"
    if labels:
        figures["labels"] = f"{labels:,}"
    if images["prediction"].notna().any():
        figures["classes predicted"] = f"{images['prediction'].nunique():,}"
    if len(judged):
        of = "" if len(judged) == len(images) else f" <small>of {len(judged):,}</small>"
        figures["predicted as labelled"] = f"{judged.mean():.1%}{of}"
    if images["probability"].notna().any():
        figures["median probability"] = f"{images['probability'].median():.0%}"
    if shown["half_area"].notna().any():
        figures["of the picture hold half of the heat"] = f"{shown['half_area'].median():.0%}"
    return figures | {"heatmaps without evidence": f"{silent:,}" if silent else "", "errors": f"{errors:,}"}


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
