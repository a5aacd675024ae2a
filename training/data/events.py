"""Names of events and sizes of values, as logs have them -> what they say of a user's liking.

Case and separators do not matter: `Add to Cart`, `add_to_cart` and `addToCart` are one name. A name that is not known
is never taken for liking: it is counted and left out.
"""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

RATED, SILENT = "rated", "silent"  # the value says how much; no word on an item: left out, and not held against the log
# ours, and what GA4, Segment, Shopify, Meta, RetailRocket, Amazon Personalize, Matomo and their like write
_NAMES = {
    "view": """view viewitem productviewed productview viewproduct viewcontent itemview itemviewed viewed detailview
        productdetailview pdpview click clicked clickitem itemclick selectitem selectcontent productclicked productclick
        open opened detailpageview read watch watched play played stream listen listened preview quickview""",
    "like": """like liked likes fav favourite favorite favourited favorited addtowishlist wishlist wishlisted
        productaddedtowishlist addtofavorites addtofavourites bookmark bookmarked save saved share shared productshared
        thumbsup upvote love loved star starred follow recommend recommended heart pin pinned""",
    "cart": """cart addtocart addcart productadded productaddedtocart addedtocart addtobasket basket addtobag
        begincheckout checkout checkoutstarted initiatecheckout addpaymentinfo addshippinginfo addtocheckout reserve
        reserved""",
    "purchase": """purchase purchased buy bought order ordered ordercompleted orderplaced checkoutcompleted transaction
        transactions sale sold completepayment paid conversion placeanorder ecommercepurchase inapppurchase subscribe
        subscribed rent rented booked booking""",
    "dismiss": """dismiss dismissed dislike disliked thumbsdown downvote hide hidden notinterested return returned
        refund refunded orderrefunded reject rejected skip skipped block blocked report reported unlike""",
    RATED: "rate rated rating ratings review reviewed score scored",
    SILENT: """sessionstart firstvisit userengagement scroll pageview screenview search viewsearchresults
        productssearched login signup viewitemlist productlistviewed viewpromotion selectpromotion viewcart cartviewed
        removefromcart productremoved impression impressions show shown filedownload videostart videoprogress
        videocomplete formstart formsubmit exit enter""",
}
MEANINGS = {name: meaning for meaning, names in _NAMES.items() for name in names.split()}
SEPARATORS = re.compile(r"[\W_]+")
MOST_RATINGS = 21  # different values of a scale: tenths of points are no ratings
WEIGHT_RANGE = (0.5, 2.0)  # of a value beside an ordinary one


@dataclass(frozen=True, slots=True)
class Known:
    """The events of a log. names: (n,) ours, "" where the value alone says it; rated, silent, unknown, missing: (n,)
    bool."""

    names: np.ndarray
    rated: np.ndarray
    silent: np.ndarray
    unknown: np.ndarray
    missing: np.ndarray


def plain(name: str) -> str:
    """A name without case and separators."""
    return SEPARATORS.sub("", name).lower()


def read_events(column: pd.Series) -> Known:
    """Names as a log has them -> ours."""
    texts = column.fillna("").astype(str).str.strip()
    meanings = texts.map({text: MEANINGS.get(plain(text), "") for text in texts.unique()}).to_numpy(dtype=object)
    missing = (texts == "").to_numpy(bool)
    rated, silent = np.asarray(meanings == RATED, bool), np.asarray(meanings == SILENT, bool)
    return Known(np.where(rated | silent, "", meanings), rated, silent, (meanings == "") & ~missing, missing)


@dataclass(frozen=True, slots=True)
class Values:
    """What the values of a log say. weights: (n,) float32 by which a confidence counts; dismissed: (n,) bool;
    note: how they were understood."""

    weights: np.ndarray
    dismissed: np.ndarray
    note: str


def read_values(values: np.ndarray, events: np.ndarray) -> Values:
    """values: (n,) float64, NaN where a row has none; events: (n,) names, "" where the value is all there is.

    Below zero is a dismissal (a return, a thumb down), and so is zero where there is no event beside it. Ratings, few
    different whole or half steps up to 10 at most, count from 0.5 for the lowest to 1.75 for the highest. Other values
    count by how they compare with the median of their event, by the logarithm: 10 times as much weighs half as much
    again."""
    alone = events == ""
    given = np.isfinite(values)
    dismissed = given & ((values < 0) | (alone & (values == 0)))
    weights = np.ones(len(values), np.float32)
    liked = given & ~dismissed & (values > 0)
    notes = []
    if _are_ratings(values[liked & alone]):
        low, high = float(values[liked & alone].min()), float(values[liked & alone].max())
        rated = liked & alone
        weights[rated] = 0.5 + 1.25 * (values[rated] - low) / (high - low)
        notes.append(f"value: ratings from {low:g} to {high:g}; the lowest counts 0.5, the highest 1.75")
        liked &= ~alone
    for name in np.unique(events[liked]) if liked.any() else ():
        own = liked & (events == name)
        middle = float(np.median(values[own]))
        weights[own] = np.clip(1 + 0.5 * np.log10(values[own] / middle), *WEIGHT_RANGE)
        if values[own].min() < values[own].max():
            notes.append(f"value{' of ' + str(name) if name else ''}: counts by its size beside the median, {middle:g}")
    if dismissed.any():
        notes.append(f"value: {int(dismissed.sum())} rows at or below zero are dismissals")
    return Values(weights, dismissed, "; ".join(notes))


def _are_ratings(values: np.ndarray) -> bool:
    """Whether positive values are steps of one scale, such as 1 to 5 stars or 0.5 to 10. Of counts the lowest is the
    most frequent; of ratings it is not."""
    steps, counts = np.unique(values, return_counts=True)
    if not 3 <= len(steps) <= MOST_RATINGS or steps.max() > 10 or len(values) < 2 * len(steps):
        return False
    return bool((steps * 2 == np.round(steps * 2)).all() and counts.argmax() > 0)
