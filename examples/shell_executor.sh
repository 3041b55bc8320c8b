#!/bin/sh
# Count the words of a file: an executor in shell. It needs jq.
#
#     reproq-prefork --command "sh examples/shell_executor.sh"
#     reproq-prefork enqueue '{"file": "README.md"}'
set -eu

payload=$2 # after --payload
[ "$payload" != - ] || payload=$(cat)
file=$(printf '%s' "$payload" | jq --raw-output '.file // empty')

if [ -z "$file" ]; then
    # JSON on the last line of standard error: another attempt cannot help.
    echo '{"message": "the payload names no file", "retry": false}' >&2
    exit 1
fi
echo "counting the words of $file" >&2
words=$(wc -w <"$file") # if this fails, the script ends, and the shell has written the reason
jq --null-input --compact-output --argjson words "$words" '{words: $words}'
