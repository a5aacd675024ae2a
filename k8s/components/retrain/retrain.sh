#!/bin/bash
# Train, ask the gate, propose. Exit code 1 where the gate refuses; nothing has moved then.
set -euo pipefail

catalogue=()
[ -e /catalogue/items.csv ] || [ -e /catalogue/items.parquet ] && catalogue=(/catalogue)
# shellcheck disable=SC2086  # several options
path="$(vitrine train "${catalogue[@]}" --releases /releases ${RETRAIN_OPTIONS:-} | tail -n 1)"
number="${path##*/}"
vitrine gate "$number" --catalogue /releases/.store --releases /releases
vitrine promote "$number" --to "$RETRAIN_TO" --reason "retrained by $HOSTNAME" --who retrain --releases /releases
echo "release $number is proposed as $RETRAIN_TO; vitrine promote $number --to production makes it live"
