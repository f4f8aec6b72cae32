"""What a report says of cost, and of how to repeat what it shows."""

import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_features.experiment.comparison_folder import parameter_said
from fer_features.experiment.heads import HEADS
from fer_features.experiment.result import Result
from fer_features.experiment.task import DEFAULT_CLASSES
from fer_features.report.summary import Section, distinct, stores
from fer_features.report.tables import NOTHING, Cell, Table, facts


def fits_table(section: Section) -> Table:
    """Tabulate every fit: what it cost and how it did; those for the curve over sizes last."""
    rows = []
    sized = [(group, group.sized) for group in section.groups]
    for group, results in [*((group, group.results) for group, _ in section.settings), *sized]:
        for result in results:
            seconds = result.seconds.get("fit")
            images = sum(result.split["sizes"]["train"].values())
            test = result.scores.get("test", {}).get("accuracy")
            rows.append(
                (
                    Cell(group.label),
                    Cell(f"{images:,}"),
                    Cell(NOTHING if result.seed is None else str(result.seed)),
                    Cell(NOTHING if seconds is None else f"{seconds:,.2f}"),
                    Cell(f"{len(result.history):,}"),
                    Cell(f"{result.scores['validation']['log_loss']:.4f}"),
                    Cell(f"{result.scores['validation']['accuracy']:.4f}"),
                    Cell(NOTHING if test is None else f"{test:.4f}"),
                )
            )
    columns = (
        "Head",
        "Training images",
        "Seed",
        "Fit, s",
        "Epochs or C tried",
        "Validation log loss",
        "Validation accuracy",
        "Test accuracy",
    )
    return Table("Every fit", columns, tuple(rows))


def pass_note(results: Sequence[Result]) -> list[str]:
    """Say what the passes of a backbone cost; every fit reuses them."""
    said = []
    for store in stores(results):
        passes = _timed_passes(store)
        if not passes:
            said.append(f"What the pass behind {store.get('name')} cost is not recorded.")
            continue
        images = " and ".join(f"{made['images']:,}" for made in passes)
        seconds = sum(made["seconds"] for made in passes)
        rate = _rate(store)
        speed = "" if rate is None else f", {rate:,.1f} images a second"
        kept = sum(made.get("resumed", 0) for made in passes)
        more = f"; {kept:,} were kept from a pass that was stopped" if kept else ""
        often = "once" if len(passes) == 1 else f"in {len(passes)} passes"
        said.append(
            f"The backbone ran {often} over {images} distinct images in {seconds:,.1f} s{speed} "
            f"({store.get('name')}{more}). Every fit reuses what it said."
        )
    return said


def cost_table(section: Section) -> Table:
    """Tabulate what each head's fits cost, those not selected and those of fewer images too."""
    rows = []
    for head, results in _by_head(section).items():
        seconds = [s for r in results if (s := r.seconds.get("fit")) is not None]
        rows.append(
            (
                Cell(head),
                Cell(f"{len(results):,}"),
                Cell(f"{np.mean(seconds):,.2f}" if seconds else NOTHING),
                Cell(_duration(sum(seconds)) if seconds else NOTHING),
                Cell(f"{sum(map(_passes, results)):,}"),
                Cell(_duration(_computed(results))),
            )
        )
    columns = (
        "Head",
        "Fits",
        "Seconds a fit",
        "All fits",
        "Epochs, all fits",
        "Computed: backbone in every epoch",
    )
    return Table(
        "Cost of the fits; the last column is computed, not measured", columns, tuple(rows)
    )


def cost_note(section: Section) -> str:
    """Say what the same fits would have cost with the backbone in every epoch, as computed."""
    results = [result for own in _by_head(section).values() for result in own]
    computed = _computed(results)
    found = stores(results)
    once = sum(made["seconds"] for store in found for made in _timed_passes(store))
    if computed is None or not once:
        return (
            "What the backbone in every epoch would have cost cannot be computed: no rate is known."
        )
    fitted = sum(result.seconds.get("fit") or 0.0 for result in results)
    times = computed / (once + fitted)
    rates = " and ".join(f"{_rate(store):,.1f}" for store in found)
    verdict = (
        f"{times:,.0f} times less"
        if times >= 2
        else "so few fits do not repay a pass over all images; each further one costs its own "
        "seconds alone"
    )
    return (
        f"Computed, not measured: with the backbone over training and validation images in every "
        f"epoch, as the original experiment had it, these {len(results):,} fits would take "
        f"{_duration(computed)} at the measured {rates} images a second (logistic heads: one "
        f"pass a fit). The seconds of pass and fits add up to {_duration(once + fitted)}: "
        f"{verdict}."
    )


def commands(section: Section, command: str | None) -> list[str]:
    """Return the command lines that give the same again."""
    made = stores(group.results[0] for group in section.groups)
    lines = ["# The embeddings:"]
    lines += [f"fer-extract SOURCE -o {_path(store)}{_extract_options(store)}" for store in made]
    if command is not None:
        lines += ["# This report, as it was called:", command]
    lines.append("# One fit of each head here:")
    for group in section.groups:
        result = group.results[0]
        given = _head_options(result)
        if given is not None:
            lines.append(
                f"fer-fit-head {_path(result.store)}{_features(result)} --head {result.label}"
                f"{given}{_task_options(result)} --seed {result.seed or 0}"
                f"{' --test' * (group.split == 'test')}"
            )
    return lines


def provenance_tables(section: Section) -> list[Table]:
    """Tabulate what is needed to repeat the fits: parameters, embeddings, versions."""
    fits = [
        (
            Cell(group.label),
            Cell(group.results[0].features),
            Cell(", ".join(f"{k}={parameter_said(v)}" for k, v in group.results[0].params.items())),
            Cell(", ".join(str(result.seed) for result in group.results)),
        )
        for group in section.groups
    ]
    tables = [Table("Heads", ("Head", "Features", "Parameters", "Seeds"), tuple(fits), numbers=4)]
    results = [result for group in section.groups for result in group.results]
    tables += [
        facts("Versions and machine", each)
        for each in distinct(result.versions for result in results)
    ]
    for store in stores(results):
        stated = {"file": store.get("name"), "fingerprint": store.get("fingerprint")}
        for part in ("backbone", "dataset"):
            shown = "data" if part == "dataset" else part
            stated |= {
                f"{shown}: {'network' if k == part else k.replace('_', ' ')}": v
                for k, v in store.get(part, {}).items()
            }
        for number, made in enumerate(store.get("provenance", {}).get("passes", []), start=1):
            # Where files lay is no reader's business.
            told = {name: value for name, value in made.items() if name != "files"}
            stated |= {f"pass {number}: {k.replace('_', ' ')}": v for k, v in told.items()}
        tables.append(facts("Embeddings", stated))
    return tables


def _timed_passes(store: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the passes behind a store of which it is known what they cost."""
    passes = store.get("provenance", {}).get("passes", [])
    return [made for made in passes if made.get("seconds") is not None]


def _rate(store: dict[str, Any]) -> float | None:
    """Return the images a second of the pass over most images; None if none is recorded."""
    passes = [made for made in _timed_passes(store) if made.get("images_per_second")]
    longest = max(passes, key=lambda made: made["images"], default=None)
    return None if longest is None else float(longest["images_per_second"])


def _by_head(section: Section) -> dict[str, list[Result]]:
    results: dict[str, list[Result]] = {}
    every = [result for group in section.groups for result in (*group.results, *group.sized)]
    for result in [*every, *section.unselected]:
        results.setdefault(result.label, []).append(result)
    return results


def _passes(result: Result) -> int:
    """Return how often a fit goes over its images: its epochs, once for a regression."""
    return max(1, sum("epoch" in entry for entry in result.history))


def _computed(results: Sequence[Result]) -> float | None:
    """Return the seconds that fits would take with the backbone in each pass over their images."""
    seconds = 0.0
    for result in results:
        rate = _rate(result.store)
        if not rate:
            return None
        sizes = result.split.get("sizes", {})
        images = sum(sum(sizes.get(name, {}).values()) for name in ("train", "validation"))
        seconds += _passes(result) * images / rate
    return seconds


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    if seconds < 120:
        return f"{seconds:,.1f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _path(store: dict[str, Any]) -> str:
    # Where stores are by default; the folder it really was in is no reader's business.
    return shlex.quote(f"cache/{store.get('name')}")


def _extract_options(store: dict[str, Any]) -> str:
    layers = [name for name in store.get("outputs", []) if name != "final"]
    return " ".join(
        [
            "",
            *filter(None, [store.get("options")]),
            *[f"--layers {','.join(layers)}"] * bool(layers),
        ]
    )


def _features(result: Result) -> str:
    return "" if result.features == "final" else f" --features {shlex.quote(result.features)}"


def _head_options(result: Result) -> str | None:
    """Return the options that differ from the defaults, None if the command has not all of them."""
    if result.label not in HEADS:
        return None
    usual = {k: _listed(v) for k, v in HEADS[result.label]().get_params().items()}
    other = {k: v for k, v in result.params.items() if usual.get(k) != v}
    if not set(other) <= set(usual) or isinstance(other.get("class_weight"), dict):
        return None
    # It is for a fit without a validation set, which the command always gives one.
    other.pop("validation_fraction", None)
    return "".join(
        f" --{name.replace('_', '-')}" + ("" if value is True else f" {parameter_said(value)}")
        for name, value in other.items()
    )


def _task_options(result: Result) -> str:
    classes = result.task["classes"]
    split = result.split
    said = []
    if list(classes.items()) != [(name, list(held)) for name, held in DEFAULT_CLASSES]:
        said += [f"--class {shlex.quote(f'{k}={chr(44).join(v)}')}" for k, v in classes.items()]
    for name in ("per_class", "split", "split_seed", "duplicates"):
        value = split.get({"split": "protocol", "split_seed": "seed"}.get(name, name))
        if value is not None:
            said.append(f"--{name.replace('_', '-')} {value}")
    labels = split.get("labels")
    if labels is not None:
        said.append(f"--labels {shlex.quote(labels['name'])}")
        for name in ("min_agreement", "labels_as"):
            said += [f"--{name.replace('_', '-')} {labels[name]}"] * bool(labels[name])
        said += [f"--map {shlex.quote(f'{k}={v}')}" for k, v in labels["map"].items()]
    by = split.get("groups", {}).get("by")
    said += [] if by is None else [f"--group-by {shlex.quote(by)}"]
    return "".join(f" {each}" for each in said)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
