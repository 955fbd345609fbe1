#!/bin/sh
# Write requirements/*.txt: the versions that the tests run with, and the hashes of their files.
#
# A version changes only where pyproject.toml demands it, or with --upgrade.
#
# Usage: lock.sh PYTHON [--upgrade | --upgrade-package NAME]...      (a Python that has uv)
set -eu
python=$1
shift
cd "$(dirname "$0")/.."

# Each lock holds for every system and every Python that pyproject.toml allows.
lock() {
    output=$1
    shift
    # --no-header: the one that uv writes quotes its whole command.
    "$python" -m uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
        --generate-hashes --no-header --no-emit-package torch --constraints requirements/torch.txt \
        --output-file "$output" "$@"
    {
        echo "# Written by make lock.  Install with: pip install --require-hashes --no-deps -r $output"
        cat "$output"
    } >"$output.new"
    mv "$output.new" "$output"
    echo "wrote $output"
}

# All of it comes first: the smaller locks are parts of it, at the same versions.
lock requirements/dev.txt "$@" pyproject.toml --extra hf --extra executorch --extra notebook \
    --extra completion --group dev
for group in build unit demo; do
    case $group in
        build) set -- --group pyproject.toml:build ;;
        unit) set -- pyproject.toml --group test ;;
        demo) set -- pyproject.toml --extra hf --group demo ;;
    esac
    rm -f "requirements/$group.txt"
    lock "requirements/$group.txt" --constraints requirements/dev.txt "$@"
done
