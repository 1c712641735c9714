#!/usr/bin/env bash
# The agent's routes with curl alone.
#
#     examples/curl.sh [URL [KEY_FILE]]
set -euo pipefail
url=${1:-http://127.0.0.1:8080}
url=${url%/}
json=(--header 'content-type: application/json')

# The key goes through a pipe: as an argument everybody on this machine could read it.
call() {
  if [ -n "${key_file:-}" ]; then
    curl --silent --show-error --fail-with-body --no-buffer --header @<(printf 'authorization: Bearer %s' "$(cat "$key_file")") "$@"
  else
    curl --silent --show-error --fail-with-body --no-buffer "$@"
  fi
}
key_file=${2:-}

echo "== GET /health: the pair, and what a request gets that does not say"
call "$url/health"

echo; echo "== POST /v1/stream: events, tentative first, final soon after"
call "$url/v1/stream" "${json[@]}" --data '{"prompt": "The module provides", "max_tokens": 8, "temperature": 0.8, "seed": 7}'

echo "== the same as one JSON object a line, final text alone"
call "$url/v1/stream" "${json[@]}" --header 'accept: application/x-ndjson' \
  --data '{"prompt": "The module provides", "max_tokens": 8, "temperature": 0.8, "seed": 7, "reveal": "final"}'

echo "== POST /v1/completions: what clients of OpenAI send"
call "$url/v1/completions" "${json[@]}" --data '{"model": "pydoc-full", "prompt": "The module provides", "max_tokens": 8, "temperature": 0.8, "seed": 7}'
echo
