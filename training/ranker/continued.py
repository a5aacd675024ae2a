"""What a ranker goes on from: the parameters that an earlier release chose, and where its factors stood."""

from dataclasses import replace
from functools import partial

from training.data.catalogue import Catalogue
from training.data.split import Split
from training.previous.release import Previous
from training.progress import say
from training.ranker.fitting import RankerParameters, Start


def chosen_before(previous: Previous | None, asked: RankerParameters) -> RankerParameters | None:
    """The parameters with the regularisation that an earlier release chose by trying; None where it did not."""
    told = None if previous is None else previous.release.manifest.training
    if previous is None or told is None or not told["chosen"] or told["ranker"] is None:
        return None
    chosen = {name: told["ranker"][name] for name in ("unobserved", "regularisation")}
    said = ", ".join(f"{name} {value:g}" for name, value in chosen.items())
    say(f"ranker: {said}, as release {previous.chosen_by} chose them")
    return replace(asked, **chosen)


def start_of(previous: Previous | None, catalogue: Catalogue, cut: Split, parameters: RankerParameters) -> Start | None:
    """Where the factors go on from; None where the release has others, or was taught what is held out here."""
    if previous is None or previous.release.ranker is None or not previous.is_before(cut.cutoff):
        return None
    if previous.release.ranker.item_factors.shape[1] != parameters.factors or cut.protocol != previous.protocol:
        return None
    return partial(previous.factors, catalogue.items["item_id"].tolist())
