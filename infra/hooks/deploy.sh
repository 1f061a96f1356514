#!/usr/bin/env bash
# Sends the package to one region after the other, then the web client. A region that fails its smoke test ends the
# roll-out: the regions that come after it keep what they have.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

package=target/azure/functions.zip
dist=client/dist

# In the subscription of azd, whatever the one of az is.
azure() {
  az "$@" --subscription "$AZURE_SUBSCRIPTION_ID" --only-show-errors --output none
}

# Tries a command up to so many times, half a minute apart: roles and routes need minutes to reach every corner of Azure.
patiently() {
  local attempts=$1 attempt
  shift
  for ((attempt = 1; attempt <= attempts; attempt++)); do
    "$@" && return
    echo "attempt $attempt of $attempts failed: $*" >&2
    [ "$attempt" = "$attempts" ] || sleep "${GEO_EVENTS_PATIENCE:-30}"
  done
  return 1
}

send() {
  local group=$1 app=$2 storage=$3
  if [ "$FUNCTIONS_PLAN" = EP1 ]; then
    # The app runs from this blob, and looks at it when it starts.
    azure storage blob upload --auth-mode login --account-name "$storage" --container-name app-package \
      --name geo-events.zip --file "$package" --overwrite &&
      azure functionapp restart --resource-group "$group" --name "$app"
  else
    azure functionapp deployment source config-zip --resource-group "$group" --name "$app" --src "$package"
  fi
}

healthy() {
  curl --fail --silent --show-error --max-time 30 --output /dev/null "$1/api/health"
}

# The smoke test is part of the program. The one that was just sent tests itself; on a machine that cannot run it, one of
# a release does.
smoke_program() {
  if [ "$(uname -sm)" = 'Linux x86_64' ]; then
    unzip -q -o "$package" geo-events -d target/azure/smoke
    echo target/azure/smoke/geo-events
  else
    command -v geo-events || {
      echo 'There is no geo-events here for the smoke test: put the executable of a release into the PATH.' >&2
      return 1
    }
  fi
}

upload() {
  local cache=$1
  shift
  # shellcheck disable=SC2016 # The container is called $web.
  azure storage blob upload-batch --auth-mode login --account-name "$CLIENT_STORAGE" --destination '$web' \
    --overwrite --content-cache-control "$cache" "$@"
}

# Names of assets hold a hash of their content, so they may be kept for ever; all else is asked for each time. The page
# comes after the assets that it names.
upload_client() {
  upload 'public, max-age=31536000, immutable' --source "$dist/assets" --destination-path assets &&
    upload no-cache --source "$pages"
}

program=$(smoke_program)
node infra/hooks/stamps.mjs lines | while IFS=$'\t' read -r region group app storage url; do
  echo "== $region"
  patiently 20 send "$group" "$app" "$storage" </dev/null
  patiently 40 healthy "$url"
  patiently 5 "$program" smoke --url "$url" </dev/null
done

echo "== all regions together"
urls=()
while IFS= read -r argument; do urls+=("$argument"); done < <(node infra/hooks/stamps.mjs urls)
patiently 5 "$program" smoke "${urls[@]}"

echo "== web client"
pages=$(mktemp -d)
trap 'rm -r "$pages"' EXIT
cp -r "$dist/." "$pages"
rm -r "$pages/assets"
node infra/hooks/stamps.mjs client >"$pages/regions.json"
patiently 20 upload_client
echo "The system is at $CLIENT_URL"
