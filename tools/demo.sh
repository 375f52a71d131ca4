#!/bin/sh
# The whole job on drawn flowers. Each command is printed before it runs; run it again to see that nothing is done twice.
set -eu

run() {
    if [ -t 1 ]; then printf '\n\033[1m$ %s\033[0m\n' "$*"; else printf '\n$ %s\n' "$*"; fi
    "$@"
}

echo 'A folder of labelled pictures becomes a classifier. The pictures here are drawn; yours come next.'
run python -m tools.sample.make --output=data/sample_pictures
run finetune data/sample_pictures --output=checkpoints/sample

set --
for class in data/sample_pictures/validation/*/; do
    [ $# -eq 3 ] && break
    set -- "$@" "$(ls "$class"* | head -n 1)"
done
run finetune predict --checkpoint_dir=checkpoints/sample "$@"

cat <<'END'

Open checkpoints/sample/report.html. Then with your own photos, one folder a class (PHOTOS/daisy/*.jpg, PHOTOS/tulip/*.jpg, ...):

  . .venv/bin/activate
  finetune PHOTOS
END
