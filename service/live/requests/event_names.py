"""Names of events as logs and callers have them -> what they say of a user's liking.

Case and separators do not matter: `Add to Cart`, `add_to_cart` and `addToCart` are one name. A name that is not known
is never taken for liking.
"""

import re

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


def meaning(name: str) -> str:
    """view, like, cart, purchase or dismiss; RATED where a value says how much; SILENT where it says nothing of an
    item; "" where the name is not known."""
    return MEANINGS.get(SEPARATORS.sub("", name).lower(), "")
