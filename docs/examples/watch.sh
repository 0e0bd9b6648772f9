#!/bin/sh
# Print the addresses of a service each time they change, with blocking reads:
# REGISTRY=http://127.0.0.1:8000 TOKEN=... sh watch.sh checkout
set -u
service=$1
index=
while :; do
    # Without an index the response comes at once; with one, after a change or 60 s (+ up to 1/16).
    if response=$(curl --silent --show-error --fail --max-time 90 --header "Authorization: Bearer $TOKEN" \
        "$REGISTRY/registry/services/$service?wait=60s${index:+&index=$index}"); then
        now=$(printf '%s' "$response" | sed 's/^{"index":"\([^"]*\)".*/\1/')
        if [ "$now" != "$index" ]; then
            index=$now
            echo "$service at $index:" $(printf '%s' "$response" | grep -o '"url" : "[^"]*"' | cut -d '"' -f 4)
        fi
    else
        sleep "$(awk 'BEGIN { srand(); print 0.5 + rand() }')" # so that clients do not all return at once
    fi
done
