"""The ranker of a release: interactions -> factors, neighbours, the weights of the terms, segments."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from training.data.side_information import Known
from training.progress import say
from training.ranker import fitting, item_neighbours, term_weights, tuning, user_segments
from training.ranker.fitting import RankerParameters, Start


def build(
    folder: Path,
    interactions: pd.DataFrame,
    *,
    ids: list[str],
    known: Known,
    parameters: RankerParameters,
    choose: bool,
    user_key: str | None,
    start: Start | None = None,
) -> dict[str, Any]:
    """Leave the files of ranker/ in `folder`; returns what the manifest says of them.

    interactions: the training period, in the order of time; ids: of the items, in row order;
    choose: whether the regularisation is searched for, from `parameters`; user_key: of the hashes of user ids;
    None: they are keys already; start: where the factors of the release itself go on from. What the weights are
    learned on has not seen what is asked there, so it never does."""
    items = len(ids)
    if choose:
        parameters = tuning.choose(interactions, items=items, known=known, start=parameters)
    say("ranker: learning the weights of the final sum from the last days of users")
    learned = term_weights.learn(interactions, items=items, parameters=parameters, known=known, seed=parameters.seed)
    trained = fitting.train(
        interactions, items=items, parameters=parameters, user_key=user_key, sides=known.sides, start=start
    )
    fitting.save(folder, trained, user_key)
    together = item_neighbours.arrays("together", item_neighbours.together(interactions, items=items))
    for name, array in together.items():
        np.save(folder / f"{name}.npy", array)
    learned.blend.save(folder / "blend.json")
    user_segments.save(folder, *user_segments.find_segments(trained, ids=ids, seed=parameters.seed))
    return {
        "users": len(trained.users),
        "pairs": len(trained.arrays["history_items"]),
        "parameters": asdict(parameters),
        "trade": learned.trade,
        "trend": trained.end.continued(),
    }
