"""What must fit what, in manifests that are rendered together: each rule gives who is at fault, and the fault."""

from collections.abc import Callable, Iterator

from k8s.rendered import Manifest, Pod
from k8s.rules.batches import batches_answer_as_the_service, batches_are_kept, batches_go_on
from k8s.rules.monitoring import metrics_can_be_read, operators_find_them, queries_ask_for_their_namespace
from k8s.rules.pods import (
    cron_jobs_end,
    images_are_pinned,
    jobs_are_named_by_release,
    pods_are_restricted,
    retrains_name_an_alias,
    settings_are_known,
    tls_is_everywhere,
)
from k8s.rules.rollout import (
    nothing_keeps_a_pod_from_starting,
    pods_of_a_rollout_are_spread,
    requests_survive,
    volumes_fit_their_pods,
)
from k8s.rules.store import (
    keys_and_store_go_together,
    pods_share_their_store,
    secrets_are_secret,
    store_can_be_reached,
)
from k8s.rules.wiring import (
    names_are_asked_for,
    peers_are_named,
    ports_exist,
    references_resolve,
    routes_lead_somewhere,
    selectors_select,
)

Rule = Callable[[list[Manifest], list[Pod]], Iterator[tuple[str, str]]]

RULES: tuple[Rule, ...] = (
    selectors_select,
    peers_are_named,
    ports_exist,
    references_resolve,
    settings_are_known,
    images_are_pinned,
    pods_are_restricted,
    requests_survive,
    pods_of_a_rollout_are_spread,
    names_are_asked_for,
    metrics_can_be_read,
    volumes_fit_their_pods,
    nothing_keeps_a_pod_from_starting,
    jobs_are_named_by_release,
    batches_are_kept,
    batches_answer_as_the_service,
    batches_go_on,
    tls_is_everywhere,
    routes_lead_somewhere,
    queries_ask_for_their_namespace,
    operators_find_them,
    secrets_are_secret,
    keys_and_store_go_together,
    pods_share_their_store,
    store_can_be_reached,
    cron_jobs_end,
    retrains_name_an_alias,
)
