"""How to have the same again: the command lines and the script that a report shows."""

import ast
import inspect
import re
import shlex
from pathlib import Path
from typing import Any

from fer_features.experiment.heads import HEADS
from fer_features.experiment.result import Result
from fer_features.report.sections import Section, stores


def commands(section: Section, command: str | None) -> list[str]:
    """Return the command lines that give the same again; :func:`python` says what they cannot."""
    lines = []
    words = [] if command is None else shlex.split(command)
    for store in stores(group.first for group in section.groups):
        named = [word for word in words if Path(word).name == store.get("name")]
        place = shlex.quote((named or [_cache(store)])[0])
        layers = ",".join(name for name in store.get("outputs", []) if name != "final")
        said = [store.get("options"), f"--layers {layers}" * bool(layers)]
        lines.append(" ".join(["fer-extract SOURCE -o", place, *filter(None, said)]))
    return [*dict.fromkeys(lines), *([] if command is None else [command])]


def _cache(store: dict[str, Any]) -> str:
    # Where stores are by default; the folder it really was in is no reader's business.
    return f"cache/{store.get('name')}"


def python(section: Section) -> str:
    """Return a script that fits the same heads to the same rows again, from stores in cache/."""
    imports = {("fer_features", name) for name in ("Store", "Task", "write_report")}
    names: dict[tuple[str, ...], str] = {}
    tasks: list[str] = []
    lines, fits = [], []
    for group in sorted(section.groups, key=lambda g: "rows_of" in g.first.store):
        result = group.first
        task = _task(result)
        if task not in tasks:
            tasks.append(task)
            lines.append(f"task{len(tasks)} = {task}")
        own = (task, _cache(result.store), result.features)
        if own not in names:
            first = next((name for key, name in names.items() if key[0] == task), None)
            names[own] = f"data{len(names) + 1}"
            lines.append(f"{names[own]} = {_data(result, f'task{tasks.index(task) + 1}', first)}")
        head = _expression(result, imports)
        seeds = [each.seed or 0 for each in group.results]
        if section.split == "test":
            imports.add(("fer_features", "compare"))
            sizes = sorted({each.split["train_part"] for each in group.sized})
            options = f"seeds={seeds}, select={section.select!r}{f', sizes={sizes}' * bool(sizes)}"
            fits.append(f"    *compare({names[own]}, {{{result.label!r}: {head}}}, {options}),")
        else:
            imports.add(("fer_features.experiment.fitting", "seeded"))
            imports.add(("fer_features.experiment.result", "fit_and_evaluate"))
            fit = f"fit_and_evaluate(seeded({head}, {{0}}), {names[own]}, seed={{0}}),"
            fits += [f"    {fit.format(seed)}" for seed in seeds]
    heading = [
        f"from {module} import {', '.join(sorted(n for m, n in imports if m == module))}"
        for module in sorted({module for module, _ in imports})
    ]
    return "\n".join(
        [*heading, "", *lines, "results = [", *fits, "]", 'write_report(results, "report")']
    )


def _data(result: Result, task: str, first: str | None) -> str:
    """Say how the rows of a fit are had: chosen by a task, or those of other rows' images."""
    store, own = result.store, f"{result.features!r}"
    origin = store.get("rows_of") or store
    said = f"{task}.select(Store({_cache(origin)!r}){f', {own}' * (origin is store)})"
    said += f".tested_on(Store({_cache(origin['test_on'])!r}))" if "test_on" in origin else ""
    if "raters" in result.split:
        said += f".with_raters({result.split['raters']['name']!r})"
    if first is None and origin is store:
        return said
    test = f", test_store=Store({_cache(store['test_on'])!r})" if "test_on" in store else ""
    return f"{first or said}.on(Store({_cache(store)!r}), {own}{test})"


def _task(result: Result) -> str:
    split, labels = result.split, result.split.get("labels") or {}
    names = {"split": "protocol", "split_seed": "seed"}
    given = {
        name: split.get(names.get(name, name))
        for name in ("per_class", "split", "split_seed", "duplicates")
    }
    given |= {"labels": labels.get("name")}
    given |= {name: labels.get(name) for name in ("min_agreement", "labels_as", "map")}
    given |= {"group_by": (split.get("groups") or {}).get("by")}
    known = {name: value for name, value in given.items() if value not in (None, {}, 0.0)}
    options = "".join(f", {name}={value!r}" for name, value in known.items())
    return f"Task({result.task['classes']!r}{options})"


def _expression(result: Result, imports: set[tuple[str, str]]) -> str:
    """Return how a head is made in Python; its imports are added.

    One of scikit-learn's is told by its name, a pipeline by its steps. Of any other classifier the
    fitted one that its run keeps is copied, without what it learnt.
    """
    for cls in HEADS.values():
        usual = cls().get_params()
        if set(result.params) == set(usual) - {"random_state"}:
            imports.add(("fer_features", cls.__name__))
            return f"{cls.__name__}({_arguments(result.params, usual, {}, imports)})"
    from sklearn.utils.discovery import all_estimators

    known = dict(all_estimators())
    own = {k: v for k, v in result.params.items() if "__" not in k}
    if "steps" in own:
        own, name = {"steps": own["steps"]}, "Pipeline"
    else:
        taking = {n: set(inspect.signature(c).parameters) for n, c in all_estimators("classifier")}
        alike = [n for n, names in taking.items() if set(own) == names - {"random_state"}]
        name = result.label if result.label in alike else "".join(alike[:1])
    try:
        usual = {} if name == "Pipeline" else known[name]().get_params(deep=False)
        said = f"{name}({_arguments(own, usual, known, imports)})"
        imports.add(_import(known[name]))
        return said
    except (KeyError, TypeError, ValueError, SyntaxError):  # a part that is not scikit-learn's
        imports |= {("fer_features", "Result"), ("sklearn.base", "clone")}
        run = "/".join(result.folder.parts[-2:]) if result.folder else "RUN"
        return f"clone(Result.load({run!r}).head())"


def _arguments(
    params: dict[str, Any],
    usual: dict[str, Any],
    known: dict[str, type],
    imports: set[tuple[str, str]],
) -> str:
    listed = {k: list(v) if isinstance(v, tuple) else v for k, v in usual.items()}
    return ", ".join(
        f"{name}={_literal(value, known, imports)}"
        for name, value in params.items()
        if name not in listed or listed[name] != value
    )


def _literal(value: Any, known: dict[str, type], imports: set[tuple[str, str]]) -> str:
    """Write a parameter as Python, where a text may stand for a part of scikit-learn."""
    if isinstance(value, list):
        return f"[{', '.join(_literal(each, known, imports) for each in value)}]"
    if isinstance(value, str) and re.match(r"[A-Z]\w+\(", value):
        for node in ast.walk(ast.parse(value, mode="eval")):
            if isinstance(node, ast.Call):
                imports.add(_import(known[ast.unparse(node.func)]))
        return value
    return repr(value)


def _import(cls: type) -> tuple[str, str]:
    return re.sub(r"[.]_.*", "", cls.__module__), cls.__name__
