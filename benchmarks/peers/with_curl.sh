#!/bin/sh
# One job, as a shell script does it: with_curl.sh FOLDER SHOT PROMPT. Run many at once with GNU parallel.
set -eu
id=$(curl -sS --fail -H "Authorization: Bearer $REAPI_API_KEY" -H 'Content-Type: application/json' \
    --data "{\"model\":\"kling-3-0-turbo\",\"duration\":3,\"resolution\":\"720p\",\"prompt\":\"$3\"}" \
    "$REAPI_BASE_URL/api/v1/videos/generations" | sed 's/.*"id":"\([^"]*\)".*/\1/')
while :; do
    answer=$(curl -sS --fail -H "Authorization: Bearer $REAPI_API_KEY" "$REAPI_BASE_URL/api/v1/tasks/$id")
    case $answer in *'"completed"'*) break ;; esac
    sleep 1
done
url=$(printf %s "$answer" | sed 's/.*"video_urls":\["\([^"]*\)".*/\1/')
curl -sS --fail -o "$1/$2.mp4" "$url"
