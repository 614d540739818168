#!/bin/sh
# Make what a build has put under a folder small, quick to start, and the same in every build.
# Usage: finish.sh FOLDER, which becomes the root of the image.
set -eu

# Tests, headers, Java and the like: a sixth of the libraries, and nothing imports them.
cd "$1"/opt/arco/lib/python3*/site-packages
rm -rf torch/test torch/include ray/jars
[ ! -d torch/bin ] || find torch/bin -type f ! -name torch_shm_manager -delete
find . -type d -name tests -prune -exec rm -rf {} +

# Compiled here, since the file system is read-only later. By the source's hash, never checked: no times in it.
# It fails for templates and for files of other versions of Python, which some libraries carry.
python3 -m compileall -qq -j 0 --invalidation-mode unchecked-hash . || true

# A wheel's files have the time of their unpacking. 1980 is the first that zip files know.
find "$1" -exec touch --no-dereference --date=1980-01-01T00:00:00Z {} +
