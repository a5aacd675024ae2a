"""Search the ranker's parameters on a validation period that lies before the test period."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd

from service.errors import CatalogueError
from service.files import write_text
from service.recommender.release import Release
from training.data import split
from training.data.catalogue import Catalogue
from training.data.side_information import Known, know
from training.progress import bar, say
from training.ranker import term_weights
from training.ranker.fitting import RankerParameters
from training.ranker.lessons import look_ahead
from training.sqlite import sqlite_url

TUNED = "tuned.json"
STUDY = "tune.db"
KEPT = 1000  # of what happened in a log, by which it is known again
FIRST_LOOK = 0.25  # of the users; a trial that is behind after that is given up
# what is tried of each where nobody said; the way starts at what most logs want
UNOBSERVED = (0.03, 0.055, 0.1, 0.17, 0.3, 0.55, 1.0, 1.7, 3.0, 5.5, 10.0, 17.0, 30.0)
REGULARISATION = (1e-4, 1.7e-4, 3e-4, 5.5e-4, 1e-3, 1.7e-3, 3e-3, 5.5e-3, 0.01, 0.017, 0.03, 0.055, 0.1, 0.17, 0.3)
STRIDES = (2, 1)  # on these grids, one after the other
START = (0.3, 0.01)
ENOUGH = 1_000_000  # interactions
FIRST = (START, (1.0, 0.003), (0.1, 0.03), (3.0, 0.001))  # of a search
FEW_SWEEPS = 6  # tell the good from the bad as well as all
MIN_USERS = 200  # for a first look to say anything


def choose(interactions: pd.DataFrame, *, items: int, known: Known, start: RankerParameters) -> RankerParameters:
    """The best regularisation for this log, by the factor scores alone: what suits a shop where people buy a little is
    wrong for one where they look at much. From the usual one it moves on to a neighbour on the grid as long as one is
    better, whichever way that leads. A log of millions is judged by some of its users."""
    users = interactions["user_id"].unique()
    thinned = interactions[interactions["user_id"].isin(users[:: 1 + len(interactions) // ENOUGH])]
    reached: dict[tuple[int, int], float] = {}

    def reach(place: tuple[int, int]) -> float:
        if place not in reached:
            tried = _at(start, place)
            tried = replace(tried, sweeps=min(tried.sweeps, FEW_SWEEPS))
            found = look_ahead(thinned, items=items, parameters=tried, known=known, seed=start.seed, beside=False)
            reached[place] = 0.0 if found is None else term_weights.rehearse_factors(found, seed=start.seed)
            progress.update(task, advance=1, note=f"best nDCG@20 {max(reached.values()):.4f}")
        return reached[place]

    with bar() as progress:
        task = progress.add_task("choosing the regularisation", total=None, note="")
        best = (UNOBSERVED.index(START[0]), REGULARISATION.index(START[1]))
        for stride in STRIDES:
            while reach(best) > 0:
                ahead = max(_neighbours(best, stride), key=reach)
                if reach(ahead) <= reach(best):
                    break
                best = ahead
    chosen = _at(start, best)
    say(
        f"ranker: unobserved {chosen.unobserved}, regularisation {chosen.regularisation}, of {len(reached)} tried "
        f"(nDCG@20 {reached[best]:.4f} of what users touched last)"
    )
    return chosen


def _at(start: RankerParameters, place: tuple[int, int]) -> RankerParameters:
    return replace(start, unobserved=UNOBSERVED[place[0]], regularisation=REGULARISATION[place[1]])


def _neighbours(place: tuple[int, int], stride: int) -> list[tuple[int, int]]:
    """Those on the grid. A step along the valley changes both."""
    steps = ((0, -1), (0, 1), (-1, 0), (1, 0), (1, -1), (-1, 1))
    near = ((place[0] + stride * up, place[1] + stride * right) for up, right in steps)
    return [(a, b) for a, b in near if 0 <= a < len(UNOBSERVED) and 0 <= b < len(REGULARISATION)]


def tune_ranker(
    catalogue: Catalogue,
    releases: Path,
    *,
    trials: int,
    test_from: int | None,
    split_column: str | None,
    release: Path | None,
    seed: int,
) -> tuple[RankerParameters, float, float]:
    """The best parameters for a catalogue, the nDCG@20 that they reach on the validation period, and that of
    the defaults. release: one of this catalogue, whose picture vectors join the items' features, or None."""
    if catalogue.interactions is None:
        raise CatalogueError("the catalogue has no interactions: there is nothing to tune")
    opened = Release.open(release) if release is not None else None
    if opened is not None and opened.items.ids != catalogue.items["item_id"].tolist():
        raise CatalogueError(f"{release} was made from another catalogue: its items are others")
    looked = opened.index if opened is not None else None
    vectors = None if looked is None else looked.vectors(np.arange(len(catalogue.items)))
    known, _ = know(catalogue, looked, None, vectors, exclude=split_column)
    cut = split.at(catalogue.interactions, test_from)
    # a study belongs to the data that it looked at
    seen = hashlib.sha256(f"{catalogue.fingerprint()} {cut.cutoff} {release is not None}".encode()).hexdigest()[:16]
    return tune(
        cut.train,
        items=len(catalogue.items),
        known=known,
        start=RankerParameters(seed=seed),
        trials=trials,
        folder=releases,
        study_name=seen,
    )


def tune(
    interactions: pd.DataFrame,
    *,
    items: int,
    known: Known,
    start: RankerParameters,
    trials: int,
    folder: Path,
    study_name: str,
) -> tuple[RankerParameters, float, float]:
    """Search until the study in `folder` has `trials` trials; one that was broken off is gone on with.

    interactions: the training period alone, in the order of time. Each trial trains on its first nine tenths and is
    judged by the nDCG@20 of the last one. Returns the best parameters, what they reached, and what
    `start` did, which is the first trial: the result is never worse on the period."""
    study = _open_study(folder, study_name, start)
    users = interactions["user_id"].unique()
    some = interactions[interactions["user_id"].isin(users[:: round(1 / FIRST_LOOK)])]

    def judge(trial: optuna.Trial) -> float:
        parameters = _suggest(trial, start)
        if len(users) >= MIN_USERS:
            first = _reach(some, items, known, parameters)
            trial.report(first, step=0)
            if trial.should_prune():
                raise optuna.TrialPruned
        return _reach(interactions, items, known, parameters)

    finished = [trial for trial in study.trials if trial.state.is_finished()]
    with bar() as progress:
        task = progress.add_task("tuning", total=trials, completed=len(finished), note="")

        def told(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            reached = [t.value for t in study.trials if t.value is not None]
            progress.update(task, advance=1, note=f"best nDCG@20 {max(reached):.4f}" if reached else "")

        study.optimize(judge, n_trials=max(0, trials - len(finished)), callbacks=[told])
    if not any(trial.value is not None for trial in study.trials):
        raise CatalogueError("no trial was finished: give more --trials")
    return _parameters(study.best_params, start), study.best_value, study.trials[0].value or 0.0


def _open_study(folder: Path, name: str, start: RankerParameters) -> optuna.Study:
    """The study in `folder`, or a new one that begins with `start`."""
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=sqlite_url(folder / STUDY),
        study_name=name,
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=start.seed, multivariate=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=8),
    )
    if not study.trials:  # the defaults, then some that are far from each other
        study.enqueue_trial(_as_trial(start))
        for unobserved, regularisation in FIRST:
            if (unobserved, regularisation) != (start.unobserved, start.regularisation):
                tried = replace(start, unobserved=unobserved, regularisation=regularisation)
                study.enqueue_trial(_as_trial(tried))
    return study


def _reach(interactions: pd.DataFrame, items: int, known: Known, parameters: RankerParameters) -> float:
    lessons = look_ahead(
        interactions, items=items, parameters=parameters, known=known, seed=parameters.seed, beside=False
    )
    if lessons is None:
        raise CatalogueError("nobody comes back in the last tenth of the training period: there is nothing to tune on")
    return term_weights.rehearse(lessons, seed=parameters.seed)


def _suggest(trial: optuna.Trial, start: RankerParameters) -> RankerParameters:
    ages = trial.suggest_categorical("ages", [False, True])
    return _parameters(
        {
            "factors": trial.suggest_categorical("factors", sorted({32, 64, 128, 192, start.factors})),
            "unobserved": trial.suggest_float("unobserved", 0.03, 30.0, log=True),
            "regularisation": trial.suggest_float("regularisation", 1e-4, 0.3, log=True),
            "steepness": trial.suggest_float("steepness", 0.0, 2.0),
            "half_life": trial.suggest_float("half_life", 20, 2000, log=True) if ages else None,
            "prior_ridge": trial.suggest_float("prior_ridge", 0.1, 1000, log=True),
        },
        start,
    )


def _parameters(values: Mapping[str, Any], start: RankerParameters) -> RankerParameters:
    """steepness: how much more each step from view to purchase says, as a share of a view; half_life: absent where
    events do not age."""
    steps = {"view": 0, "like": 1, "cart": 2, "purchase": 3}
    confidences = dict(start.confidences) | {name: 1 + values["steepness"] * at for name, at in steps.items()}
    return replace(
        start,
        confidences=confidences,
        half_life=values.get("half_life"),
        **{name: values[name] for name in ("factors", "unobserved", "regularisation", "prior_ridge")},
    )


def _as_trial(start: RankerParameters) -> dict[str, Any]:
    found = {
        "factors": start.factors, "unobserved": start.unobserved, "regularisation": start.regularisation,
        "steepness": start.confidences["like"] - 1, "ages": start.half_life is not None,
        "prior_ridge": start.prior_ridge,
    }  # fmt: skip
    return found if start.half_life is None else {**found, "half_life": start.half_life}


def save(parameters: RankerParameters, reached: float, folder: Path, seen: Sequence[str]) -> Path:
    """Write tuned.json, which `vitrine train` takes its defaults from. seen: what `happened` says of the
    log, of which some is kept, so that the log is known again."""
    path = folder / TUNED
    found = {"ndcg_at_20": reached, "parameters": asdict(parameters), "happened": seen[:: 1 + len(seen) // KEPT]}
    write_text(path, json.dumps(found, indent=1) + "\n")
    return path


def defaults(folder: Path, here: Callable[[], Iterable[str]]) -> dict[str, Any]:
    """The parameters in tuned.json of a releases folder; nothing where there is none, or where it was tuned on another
    log: half of what happened there must be in this one, which may have grown since. here: what `happened` says of this
    one. Raises CatalogueError."""
    path = folder / TUNED
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
        parameters, kept = dict(found["parameters"]), list(found["happened"])
        RankerParameters(**parameters)
    except (ValueError, KeyError, TypeError) as error:
        raise CatalogueError(f"{path} cannot be read ({error!r}); remove it, or run `vitrine tune` again") from error
    there = set(here())
    shared = sum(each in there for each in kept)
    if 2 * shared < len(kept):
        say(
            f"ranker: {path} was tuned on another log ({shared} of {len(kept)} meetings of it are in this one) and "
            "is not used; vitrine tune makes one for this log"
        )
        return {}
    say(f"ranker: parameters from {path}")
    return parameters


def happened(catalogue: Catalogue) -> list[str]:
    """A digest for each user and item that met, in order."""
    if catalogue.interactions is None:
        return []
    met = catalogue.interactions[["user_id", "item"]].drop_duplicates()
    items = catalogue.items["item_id"].to_numpy()[met["item"]]
    pairs = zip(met["user_id"], items, strict=True)
    return sorted(hashlib.sha256(f"{user}\0{item}".encode()).hexdigest()[:16] for user, item in pairs)
